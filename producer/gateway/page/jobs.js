import { getJson } from "./api.js";
import { Card } from "./card.js";
import { announce, byId, setText } from "./dom.js";
import { Positions } from "./positions.js";
import { progress, title } from "./words.js";

const PAGE = 24;
const LARGEST_PAGE = 100;
const MOST_CARDS = 300; // a page that stays open for days starts over at the newest
const MOST_READS = 5;
const NO_JOBS = "No jobs yet: draw something, or drop a picture.";
const FILTERS = {
  all: {},
  failed: { state: "failed" },
  running: { state: "running" },
};

/** The newest jobs first: a page of them, what events tell, and what was submitted here. */
export class Gallery {
  #cards = new Map();
  #mine = new Set();
  #filter = FILTERS.all;
  #cursor = null;
  #reading = new AbortController();
  #positions = new Positions({
    onPlace: (id, place) => this.#showPlace(id, place),
    onEnd: (job) => this.hear(job),
  });

  constructor() {
    byId("more").addEventListener("click", () => this.#more());
    byId("filter").addEventListener("change", (event) => this.#choose(event.target.value));
  }

  /** Reads again as many jobs as are shown. */
  async reload() {
    const limit = this.#cards.size > LARGEST_PAGE ? PAGE : Math.max(PAGE, this.#cards.size);
    const askedAt = performance.now();
    const page = await this.#read(limit);
    if (!page) return;
    const ids = new Set(page.data.map((job) => job.id));
    for (const [id, card] of this.#cards) {
      if (!ids.has(id) && !this.#isKept(id) && card.heardAt < askedAt) this.#remove(id);
    }
    this.#append(page, askedAt);
    for (const [id, card] of this.#cards) {
      if (!ids.has(id) && !hasEnded(card.job)) this.#look(card.job);
    }
  }

  /** A job that the filter leaves out of pages, whose news may have been missed. */
  async #look({ id, status_url }) {
    const askedAt = performance.now();
    try {
      const job = await getJson(status_url);
      if (this.#cards.has(id)) this.#put(job, askedAt);
    } catch (error) {
      setText(byId("gallery-error"), error.message);
    }
  }

  clear() {
    this.#reading.abort();
    for (const id of [...this.#cards.keys()]) this.#remove(id);
    this.#mine.clear();
    this.#positions.clear();
    this.#cursor = null;
    byId("more").hidden = byId("empty").hidden = true;
  }

  /** A job that was submitted or retried here: it is shown whatever the filter says. */
  submitted(job, askedAt) {
    this.#mine.add(job.id);
    this.#put(job, askedAt);
    const card = this.#cards.get(job.id);
    card.node.scrollIntoView({ block: "nearest" });
    announce(`Queued: ${title(job)}`);
    // Beside the filter, news that came before this answer were taken for another's.
    if (!this.#matches(job)) this.#look(job);
  }

  hear(job) {
    const isNew = !this.#cards.has(job.id);
    if (!this.#isKept(job.id) && !this.#matches(job)) this.#remove(job.id);
    else if (!isNew || !this.#isBelow(job)) this.#put(job, performance.now());
    if (this.#cards.size > MOST_CARDS && byId("gallery").ariaBusy !== "true") this.reload();
  }

  pause() {
    this.#positions.pause();
  }

  resume() {
    this.#positions.resume();
  }

  /** Reads the places in the queue again which no stream of events tells. */
  readPlaces() {
    const isBusy = byId("gallery").ariaBusy === "true" || this.#cards.size > LARGEST_PAGE;
    if (!isBusy && this.#positions.isBehind) this.reload();
  }

  tick() {
    for (const card of this.#cards.values()) card.tick();
  }

  #choose(name) {
    this.#filter = FILTERS[name] ?? { task: name };
    this.#mine.clear();
    this.reload();
  }

  async #more() {
    const askedAt = performance.now();
    const page = await this.#read(PAGE, this.#cursor);
    if (page) this.#append(page, askedAt);
  }

  /** A page of jobs; null when it could not be read, or nobody wants it any more. */
  async #read(limit, cursor) {
    this.#reading.abort();
    const { signal } = (this.#reading = new AbortController());
    byId("gallery").ariaBusy = "true";
    try {
      const page = await readPage({ ...this.#filter, limit }, cursor, signal);
      setText(byId("gallery-error"), "");
      return page;
    } catch (error) {
      if (!signal.aborted) setText(byId("gallery-error"), error.message);
      return null;
    } finally {
      if (!signal.aborted) byId("gallery").ariaBusy = "false";
    }
  }

  #append(page, askedAt) {
    for (const job of page.data) this.#put(job, askedAt);
    this.#cursor = page.next_cursor;
    byId("more").hidden = !page.next_cursor;
    this.#renderEmpty();
  }

  /** Shows the job as it was at `heardAt`, unless newer news of it are known. */
  #put(job, heardAt) {
    const card = this.#cards.get(job.id) ?? this.#insert(job);
    if (card.heardAt > heardAt) return;
    const before = card.job?.state;
    card.update(job, heardAt);
    this.#positions.consider(job);
    if (!this.#mine.has(job.id)) return;
    if (before && before !== job.state) announce(`${progress(job)}: ${title(job)}`);
  }

  #insert(job) {
    const card = new Card(job, {
      onCanceled: (canceled, askedAt) => this.#put(canceled, askedAt),
      onRetried: (retried, askedAt) => this.submitted(retried, askedAt),
    });
    const nodes = [...byId("gallery").children];
    const next = nodes.find((node) => isOlder(this.#cards.get(node.dataset.job).job, job));
    byId("gallery").insertBefore(card.node, next ?? null);
    this.#cards.set(job.id, card);
    byId("empty").hidden = true;
    return card;
  }

  #remove(id) {
    this.#positions.drop(id);
    this.#cards.get(id)?.remove();
    this.#cards.delete(id);
    this.#renderEmpty();
  }

  #renderEmpty() {
    byId("empty").hidden = this.#cards.size > 0;
    const none = this.#filter === FILTERS.all ? NO_JOBS : "No such jobs.";
    setText(byId("empty"), this.#cursor ? "None among the latest." : none);
  }

  #showPlace(id, place) {
    const card = this.#cards.get(id);
    if (card?.job.state === "queued") card.place = place;
  }

  /** Whether it is shown although the filter may say otherwise. */
  #isKept(id) {
    return this.#filter !== FILTERS.all && this.#mine.has(id);
  }

  #matches(job) {
    return Object.entries(this.#filter).every(([name, value]) => job[name] === value);
  }

  /** Whether the job belongs below the last card, where "More" will bring it. */
  #isBelow(job) {
    const last = byId("gallery").lastElementChild;
    return this.#cursor !== null && last && isOlder(job, this.#cards.get(last.dataset.job).job);
  }
}

/** The gateway's pages may be short where it has a filter to apply: then the next is added. */
async function readPage(query, cursor, signal) {
  const data = [];
  for (let reads = 0; reads < MOST_READS; reads++) {
    const wanted = new URLSearchParams(cursor ? { ...query, cursor } : query);
    const page = await getJson(`v1/jobs?${wanted}`, { signal });
    data.push(...page.data);
    cursor = page.next_cursor;
    if (!cursor || data.length >= query.limit / 2) break;
  }
  return { data, next_cursor: cursor };
}

function hasEnded({ state }) {
  return state !== "queued" && state !== "running";
}

function isOlder(one, other) {
  if (one.created_at !== other.created_at) return one.created_at < other.created_at;
  return one.id < other.id;
}
