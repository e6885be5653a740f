import { follow } from "./events.js";

const MOST = 4; // of the six connections of a browser to a host

/** Follows the places in the queue of the oldest waiting jobs. */
export class Positions {
  #waiting = new Map();
  #open = new Map();
  #isPaused = false;
  #isDue = false;

  constructor({ onPlace, onEnd }) {
    this.onPlace = onPlace;
    this.onEnd = onEnd;
  }

  consider(job) {
    if (job.state === "queued") this.#waiting.set(job.id, job);
    else this.drop(job.id);
    if (!this.#isDue) queueMicrotask(() => this.#fill()); // after all jobs of a page are added
    this.#isDue = true;
  }

  /** Whether some waiting jobs are not followed. */
  get isBehind() {
    return !this.#isPaused && this.#waiting.size > this.#open.size;
  }

  pause() {
    this.#isPaused = true;
    for (const controller of this.#open.values()) controller.abort();
  }

  resume() {
    this.#isPaused = false;
    this.#fill();
  }

  clear() {
    for (const id of [...this.#waiting.keys()]) this.drop(id);
  }

  drop(id) {
    this.#waiting.delete(id);
    this.#open.get(id)?.abort();
  }

  #fill() {
    this.#isDue = false;
    const oldest = [...this.#waiting.values()].sort((a, b) => a.created_at - b.created_at);
    for (const job of oldest) {
      if (this.#isPaused || this.#open.size >= MOST) return;
      if (!this.#open.has(job.id)) this.#follow(job);
    }
  }

  async #follow({ id, events_url }) {
    const controller = new AbortController();
    const onEvent = (type, data) => this.#hear(id, type, data);
    this.#open.set(id, controller);
    try {
      await follow(events_url, { signal: controller.signal, onEvent });
    } catch {
      // The stream of all jobs reports its changes.
    }
    this.#open.delete(id);
    if (!controller.signal.aborted) this.#waiting.delete(id);
    this.#fill();
  }

  #hear(id, type, data) {
    if (type === "position") this.onPlace(id, data);
    if (type !== "end") return true;
    this.onEnd(data);
    return false;
  }
}
