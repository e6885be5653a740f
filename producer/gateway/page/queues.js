import { byId, element, setText } from "./dom.js";
import { duration } from "./words.js";

const FIELDS = ["depth", "running", "oldest_wait_s"];

export function showQueues({ queues, workers }) {
  const body = byId("queues").tBodies[0];
  keep(body, queues, "queue", ({ queue }) => queueRow(queue), renderQueue);
  keep(byId("workers"), workers, "worker", workerItem, renderWorker);
  setText(byId("no-workers"), workers.length ? "" : "No worker is live: jobs wait until one starts.");
}

/** One child for each value, in their order; those that were there before are kept. */
function keep(parent, values, kind, make, render) {
  const known = new Map([...parent.children].map((node) => [node.dataset[kind], node]));
  const nodes = values.map((value) => {
    const node = known.get(value.queue ?? value.name) ?? make(value);
    render(node, value);
    return node;
  });
  parent.replaceChildren(...nodes);
}

function queueRow(name) {
  const cells = FIELDS.map((field) => element("td", { "data-field": field }));
  return element("tr", { "data-queue": name }, element("th", { scope: "row" }, name), ...cells);
}

function renderQueue(row, queue) {
  const [depth, running, oldest] = row.querySelectorAll("td");
  setText(depth, String(queue.depth));
  setText(running, String(queue.running));
  setText(oldest, queue.depth ? duration(queue.oldest_wait_s) : "–");
}

function workerItem({ name }) {
  return element("li", { "data-worker": name }, element("strong", {}, name), element("span"));
}

function renderWorker(item, { device, queues, model, bundle_version }) {
  const parts = [device, [model, bundle_version].filter(Boolean).join(" "), queues.join(", ")];
  setText(item.querySelector("span"), parts.filter(Boolean).join(" · "));
}
