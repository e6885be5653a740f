import { getJson } from "./api.js";

/** The state of queues, workers and models; dispatches "change" at each update. */
export class Cluster extends EventTarget {
  queues = [];
  workers = [];
  models = [];
  mayPause = false;
  problem = "";
  isKnown = false;
  #served = "";
  #reads = 0;

  /** Updates queues and workers; reads the models again when the workers have changed. */
  hear({ queues, workers, may_pause }) {
    Object.assign(this, { queues, workers, mayPause: Boolean(may_pause) });
    const served = JSON.stringify(workers.map(({ seen_at, ...rest }) => rest));
    if (served !== this.#served || this.problem) this.#read(served);
    this.#tell();
  }

  /** Updates one queue from the gateway's answer. */
  hearQueue(queue) {
    this.queues = this.queues.map((one) => (one.queue === queue.queue ? { ...one, ...queue } : one));
    this.#tell();
  }

  /** Returns the models that serve a kind, its default model first. */
  serving(kind) {
    const found = this.models.filter(({ kinds }) => kind in kinds);
    return found.sort((a, b) => isDefault(b, kind) - isDefault(a, kind));
  }

  get kinds() {
    return [...new Set(this.models.flatMap(({ kinds }) => Object.keys(kinds)))];
  }

  /** Returns the queues in which a model's jobs wait. */
  queuesOf({ name, kinds, default_for }) {
    const own = Object.keys(kinds).map((kind) => `${kind}.${name}`);
    const names = [...own, ...default_for].flatMap((queue) => [queue, `${queue}.bulk`]);
    return this.queues.filter(({ queue }) => names.includes(queue));
  }

  holders(name) {
    return this.workers.filter(({ models }) => models.includes(name));
  }

  async #read(served) {
    this.#served = served;
    const read = ++this.#reads;
    const news = await answered(getJson("v1/models"));
    if (read !== this.#reads) return; // a later read is newer, whatever the order of answers
    Object.assign(this, news);
    this.#tell();
  }

  #tell() {
    this.dispatchEvent(new Event("change"));
  }
}

const answered = (request) => request.then(
  ({ data }) => ({ models: data, problem: "", isKnown: true }),
  ({ message }) => ({ problem: message }));

export const isDefault = (model, kind) => model.default_for.includes(kind);

export const cluster = new Cluster();
