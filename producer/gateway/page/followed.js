import { store } from "./store.js";

const MOST = 50;

/** The ids of the last jobs submitted in this tab, the latest last; kept over a reload. */
export class Followed {
  #ids = new Set(store.get("followed", []));

  add(id) {
    this.#ids.delete(id);
    this.#ids.add(id);
    if (this.#ids.size > MOST) this.#ids.delete(this.#ids.values().next().value);
    this.#keep();
  }

  drop(id) {
    if (this.#ids.delete(id)) this.#keep();
  }

  clear() {
    this.#ids.clear();
    this.#keep();
  }

  has(id) {
    return this.#ids.has(id);
  }

  get all() {
    return [...this.#ids];
  }

  #keep() {
    store.set("followed", [...this.#ids]);
  }
}
