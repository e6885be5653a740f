import { getBlob, getJson, post } from "./api.js";
import { cluster } from "./cluster.js";
import { byId, element, keep, setText } from "./dom.js";
import { filterOf } from "./kinds.js";
import { fullTime, when } from "./words.js";

const AGAIN_MS = 2_000;
const FEW = 3;
const MANY = 100;
const ENDED = ["completed", "failed", "cancelled"];
const WORDS = {
  in_progress: "Running", cancelling: "Canceling", completed: "Done", cancelled: "Canceled", failed: "Failed",
};

/** The list of the caller's batch jobs, with their progress and outputs. */
export class BatchList {
  #isAll = false;
  #seen = "";
  #timer = 0;
  #reads = 0;
  #isPaused = true;

  constructor() {
    cluster.addEventListener("change", () => this.#onQueues());
  }

  /** Shows the latest few above the jobs ("few"), only batch jobs ("all"), or none ("none"). */
  show(which) {
    this.#isAll = which === "all";
    byId("batches").dataset.shown = which;
    return this.read();
  }

  pause() {
    this.#isPaused = true;
    this.#stop();
  }

  resume() {
    this.#isPaused = false;
    this.read();
  }

  async read() {
    this.#stop();
    const read = ++this.#reads;
    const isLate = () => read !== this.#reads; // a later read has begun
    try {
      const { data } = await getJson(`v1/batches?limit=${this.#isAll ? MANY : FEW}`);
      if (isLate()) return;
      setText(byId("batches-error"), "");
      this.#render(data);
      if (data.some(({ status }) => !ENDED.includes(status))) this.#later();
    } catch (error) {
      if (isLate()) return;
      setText(byId("batches-error"), byId("batch-list").children.length || this.#isAll ? error.message : "");
    }
  }

  #stop() {
    clearTimeout(this.#timer);
    this.#timer = 0;
  }

  /** Schedules a read; further calls do not postpone it. */
  #later() {
    if (!this.#isPaused) this.#timer ||= setTimeout(() => this.read(), AGAIN_MS);
  }

  /** Reads again when bulk queues change, as when a batch job starts elsewhere. */
  #onQueues() {
    const bulk = cluster.queues.filter(({ queue }) => queue.endsWith(".bulk"));
    const seen = JSON.stringify(bulk.map(({ depth, running, submitted }) => [depth, running, submitted]));
    if (seen === this.#seen) return;
    this.#seen = seen;
    this.#later();
  }

  #render(batches) {
    keep(byId("batch-list"), batches, ({ id }) => id, (batch) => this.#make(batch), render);
    byId("batches").hidden = !batches.length && !this.#isAll;
    byId("no-batches").hidden = batches.length > 0;
  }

  #make(batch) {
    const titleId = `title-${batch.id}`;
    const attributes = { type: "button", "aria-describedby": titleId };
    const cancel = element("button", { ...attributes, class: "cancel" }, "Cancel");
    const output = element("button", { ...attributes, class: "output" }, "Output");
    const error = element("p", { class: "error", role: "alert" });
    cancel.addEventListener("click", () => this.#act(error, () => post(`v1/batches/${batch.id}/cancel`)));
    output.addEventListener("click", () => this.#act(error, () => download(batch.id)));
    return element("li", { class: "batch" },
      element("div", { class: "about" }, element("h3", { id: titleId }, titleOf(batch)),
        element("p", { class: "state" }), element("time", { title: fullTime(batch.created_at) })),
      element("progress", { "aria-labelledby": titleId }), error,
      element("div", { class: "actions" }, cancel, output));
  }

  async #act(error, does) {
    setText(error, "");
    try {
      await does();
    } catch (problem) {
      setText(error, problem.message);
    }
    this.read();
  }
}

function titleOf({ endpoint, request_counts }) {
  const kind = endpoint.slice(endpoint.lastIndexOf("/") + 1);
  const count = request_counts.total.toLocaleString("en");
  return `${filterOf(kind)}, ${count} ${request_counts.total === 1 ? "request" : "requests"}`;
}

function render(item, { status, request_counts: counts, created_at, errors }) {
  const hasEnded = ENDED.includes(status);
  const part = (name) => item.querySelector(name);
  item.dataset.state = hasEnded ? { completed: "succeeded", cancelled: "canceled" }[status] ?? status : "running";
  setText(part(".state"), stateOf(status, counts, errors));
  setText(part("time"), when(created_at));
  part("progress").hidden = hasEnded;
  [part("progress").max, part("progress").value] = [counts.total, counts.completed + counts.failed];
  part(".cancel").hidden = status !== "in_progress";
  part(".output").hidden = !hasEnded || status === "failed";
}

function stateOf(status, { total, completed, failed }, errors) {
  const parts = [`${WORDS[status]}: ${completed.toLocaleString("en")} of ${total.toLocaleString("en")}`];
  if (failed) parts.push(`${failed.toLocaleString("en")} ${status === "cancelled" ? "not run or failed" : "failed"}`);
  if (errors) parts.push(errors.data[0].message);
  return parts.join(", ");
}

/** Fetches the output, because a plain link cannot send the API key. */
async function download(id) {
  const href = URL.createObjectURL(await getBlob(`v1/batches/${id}/output`));
  element("a", { href, download: `${id}.jsonl` }).click();
  setTimeout(() => URL.revokeObjectURL(href), 60_000);
}
