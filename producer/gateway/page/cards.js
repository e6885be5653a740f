import { Card } from "./card.js";
import { byId } from "./dom.js";
import { isOlder, placeOf } from "./pages.js";

/** The shown cards, the latest first; made for up to thousands of them. */
export class Cards {
  #cards = new Map();
  #order = [];

  constructor(listeners) {
    this.listeners = listeners;
  }

  get size() {
    return this.#cards.size;
  }

  get(id) {
    return this.#cards.get(id);
  }

  [Symbol.iterator]() {
    return this.#order.values();
  }

  get last() {
    return this.#order.at(-1);
  }

  /** Returns a job's card; makes it if there is none. */
  of(job) {
    return this.#cards.get(job.id) ?? this.#insert(job);
  }

  remove(id) {
    const card = this.#cards.get(id);
    if (!card) return;
    const place = this.#placeOf(card.job);
    const hadFocus = card.node.contains(document.activeElement);
    this.#order.splice(place, 1);
    this.#cards.delete(id);
    card.remove();
    if (hadFocus) (this.#order[place] ?? this.last)?.node.focus();
  }

  /** Removes the cards of jobs older than this one. */
  cutAfter(job) {
    while (this.last && isOlder(this.last.job, job)) this.remove(this.last.job.id);
  }

  /** Returns the picture `steps` away: of the same job, else of its neighbor; null at the ends. */
  beside(id, index, steps) {
    const card = this.#cards.get(id);
    if (!card) return null;
    const within = index + steps;
    if (within >= 0 && within < card.pictures.length) return { job: card.job, index: within };
    const other = this.#order[this.#placeOf(card.job) + steps];
    if (!other) return null;
    return { job: other.job, index: steps > 0 ? 0 : Math.max(0, other.pictures.length - 1) };
  }

  #insert(job) {
    const card = new Card(job, this.listeners);
    card.job = job;
    const place = this.#placeOf(job);
    byId("gallery").insertBefore(card.node, this.#order[place]?.node ?? null);
    this.#order.splice(place, 0, card);
    this.#cards.set(job.id, card);
    return card;
  }

  #placeOf(job) {
    return placeOf(job, this.#order, (card) => card.job);
  }
}
