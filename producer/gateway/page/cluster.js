import { getJson } from "./api.js";

/** What is known of queues, workers and models; tells "change" with each news of them. */
export class Cluster extends EventTarget {
  queues = [];
  workers = [];
  models = [];
  mayPause = false;
  problem = "";
  isKnown = false;
  #served = "";
  #reads = 0;

  /** News of queues and workers; when workers serve other models, these are read anew. */
  hear({ queues, workers, may_pause }) {
    Object.assign(this, { queues, workers, mayPause: Boolean(may_pause) });
    const served = JSON.stringify(workers.map(({ seen_at, ...rest }) => rest));
    if (served !== this.#served || this.problem) this.#read(served);
    this.#tell();
  }

  /** The queue's view as the gateway has answered it. */
  hearQueue(queue) {
    this.queues = this.queues.map((one) => (one.queue === queue.queue ? { ...one, ...queue } : one));
    this.#tell();
  }

  /** The models that serve a kind, that which serves jobs that name none first. */
  serving(kind) {
    const found = this.models.filter(({ kinds }) => kind in kinds);
    return found.sort((a, b) => isDefault(b, kind) - isDefault(a, kind));
  }

  get kinds() {
    return [...new Set(this.models.flatMap(({ kinds }) => Object.keys(kinds)))];
  }

  /** The queues in which the jobs of a model wait. */
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
    if (read !== this.#reads) return; // a later one is newer, whichever came first
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
