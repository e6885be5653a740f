import { post } from "./api.js";
import { cluster } from "./cluster.js";
import { byId, element, keep, setText } from "./dom.js";
import { showFacts } from "./facts.js";
import { duration } from "./words.js";

const FIELDS = ["depth", "running", "oldest_wait_s", "mean_run_s"];

/** Sets up the view of queues and workers, where operators pause and resume queues. */
export function prepareQueues() {
  cluster.addEventListener("change", render);
}

function render() {
  const { queues, workers, mayPause } = cluster;
  const shown = queues.filter((queue) => isInUse(queue));
  byId("queues").classList.toggle("may-pause", mayPause);
  keep(byId("queues").tBodies[0], shown, ({ queue }) => queue, makeRow, renderRow);
  keep(byId("workers"), workers, ({ name }) => name, makeWorker, renderWorker);
  setText(byId("no-workers"), workers.length ? "" : "No worker is live: jobs wait until one starts.");
  renderSummary(queues, workers);
}

/** Whether to show a queue: it has jobs or workers, is paused, or is named by its kind alone. */
function isInUse({ queue, depth, running, paused }) {
  return depth || running || paused || cluster.workers.some(({ queues }) => queues.includes(queue))
    || !queue.includes(".");
}

/** Renders the summary in the header. */
function renderSummary(queues, workers) {
  const sum = (field) => queues.reduce((total, queue) => total + queue[field], 0);
  const { length } = workers.filter(({ device }) => device); // others run no models
  const served = length === 1 ? "1 worker" : `${length} workers`;
  setText(byId("summary"), `${sum("depth")} waiting · ${sum("running")} running · ${served}`);
}

function makeRow({ queue }) {
  const cells = FIELDS.map((field) => element("td", { "data-field": field }));
  const button = element("button", { type: "button", class: "pause" });
  const row = element("tr", { "data-queue": queue },
    element("th", { scope: "row" }, queue, element("span", { class: "badge" }, "paused")), ...cells,
    element("td", { class: "act" }, button));
  button.addEventListener("click", () => pause(row, queue));
  return row;
}

function renderRow(row, queue) {
  const [depth, running, oldest, mean] = row.querySelectorAll("[data-field]");
  setText(depth, queue.depth.toLocaleString("en"));
  setText(running, String(queue.running));
  setText(oldest, queue.depth ? duration(queue.oldest_wait_s) : "–");
  setText(mean, queue.mean_run_s === null ? "–" : duration(queue.mean_run_s));
  row.querySelector(".badge").hidden = !queue.paused;
  const button = row.querySelector(".pause");
  setText(button, queue.paused ? "Resume" : "Pause");
  button.setAttribute("aria-label", `${button.textContent} ${queue.queue}`);
}

/** Pauses a queue, whose running jobs finish; or resumes it. */
async function pause(row, name) {
  const { paused } = cluster.queues.find(({ queue }) => queue === name);
  setText(byId("queues-error"), "");
  try {
    cluster.hearQueue(await post(`v1/queues/${encodeURIComponent(name)}/${paused ? "resume" : "pause"}`));
  } catch (error) {
    setText(byId("queues-error"), error.message);
  }
}

function makeWorker({ name }) {
  return element("li", { class: "panel", "data-worker": name }, element("h3", {}, name), element("dl", { class: "facts" }));
}

function renderWorker(item, { device, models, loading, unloaded, failures, queues }) {
  showFacts(item.querySelector(".facts"), [
    { name: "Device", value: device },
    { name: "Loaded", value: models.join(", ") },
    { name: "Loading", value: loading.join(", ") },
    { name: "May load", value: unloaded.join(", ") },
    { name: "Broken", value: Object.keys(failures).join(", ") },
    { name: "Queues", value: queues.join(", ") },
  ]);
}
