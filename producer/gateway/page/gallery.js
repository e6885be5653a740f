import { isActive, onDeleted } from "./actions.js";
import { announce } from "./announcer.js";
import { getJson } from "./api.js";
import { Cards } from "./cards.js";
import { byId, setText } from "./dom.js";
import { Followed } from "./followed.js";
import { isOlder, readPage } from "./pages.js";
import { Positions } from "./positions.js";
import { onSubmitted } from "./submit.js";
import { Viewer } from "./viewer.js";
import { progress, title } from "./words.js";

const PAGE = 24;
const NEXT_PAGE = 60; // on scrolling down
const LARGEST_PAGE = 100;
const MOST_PLACES = 200;
const MOST_CARDS = 600; // max, for a page open for days and not scrolled down
const AHEAD = "800px"; // distance below the viewport at which the next page is read
const NO_JOBS = "No jobs yet: draw something, or drop a picture.";

/** The gallery of jobs, newest first: pages read, jobs of events, and jobs submitted here. */
export class Gallery {
  #mine = new Followed();
  #query = {};
  #cursor = null;
  #reading = new AbortController();
  #cards = new Cards({
    onChanged: (job, askedAt) => this.#put(job, askedAt),
    onOpen: (job, index) => this.#viewer.open(job, index),
  });
  #ahead = new IntersectionObserver(
    (seen) => seen.some(({ isIntersecting }) => isIntersecting) && this.#more(),
    { rootMargin: AHEAD },
  );
  #viewer = new Viewer({
    onChanged: (job, askedAt) => this.#put(job, askedAt),
    beside: (id, index, steps) => this.#cards.beside(id, index, steps),
  });
  #positions = new Positions({
    onPlace: (id, place) => this.#showPlace(id, place),
    onEnd: (job) => this.hear(job),
  });

  constructor() {
    byId("more").addEventListener("click", () => this.#more());
    onSubmitted((job, askedAt) => this.#submitted(job, askedAt));
    onDeleted((id) => this.#forget(id));
  }

  /** Shows only jobs that have these values. */
  choose(query) {
    this.#query = query;
    this.clear();
    this.reload();
  }

  /** Catches up with changes since the last read or event. */
  async reload() {
    const newest = this.#cards.last && [...this.#cards][0].job;
    const askedAt = performance.now();
    const page = await this.#read(Math.min(LARGEST_PAGE, Math.max(PAGE, this.#cards.size)));
    if (!page) return;
    const oldest = page.next_cursor ? page.data.at(-1) : undefined;
    this.#dropMissing(page, oldest, askedAt);
    const isGap = newest && oldest && isOlder(newest, oldest);
    if (isGap) this.#cards.cutAfter(oldest);
    const reachesFarther = !oldest || isGap || !this.#cards.last || !isOlder(this.#cards.last.job, oldest);
    for (const job of page.data) this.#put(job, askedAt);
    if (reachesFarther) this.#setCursor(page.next_cursor);
    this.#lookForOthers(new Set(page.data.map(({ id }) => id)));
  }

  clear() {
    this.#reading.abort();
    for (const card of [...this.#cards]) this.#remove(card.job.id);
    this.#positions.clear();
    this.#cursor = null;
    byId("more").hidden = byId("empty").hidden = true;
  }

  /** Forgets all jobs, when the API key changes. */
  forgetAll() {
    this.clear();
    this.#mine.clear();
  }

  hear(job) {
    const isNew = !this.#cards.get(job.id);
    if (!this.#isKept(job.id) && !this.#matches(job)) this.#remove(job.id);
    else if (!isNew || !this.#isBelow(job)) this.#put(job, performance.now());
    const isAtTop = byId("gallery").getBoundingClientRect().top > -innerHeight;
    if (this.#cards.size > MOST_CARDS && isAtTop && !this.#isReading) this.choose(this.#query);
  }

  pause() {
    this.#positions.pause();
  }

  resume() {
    this.#positions.resume();
  }

  /** Reads the places in the queue of waiting jobs that have no open event stream. */
  async readPlaces() {
    if (!this.#positions.isBehind) return;
    const askedAt = performance.now();
    const page = await getJson(`v1/jobs?state=queued&limit=${MOST_PLACES}`).catch(() => ({ data: [] }));
    for (const job of page.data) if (this.#cards.get(job.id)) this.#put(job, askedAt);
  }

  tick() {
    for (const card of this.#cards) card.tick();
  }

  /** Shows a job that was submitted or retried here, whatever the filter. */
  #submitted(job, askedAt) {
    this.#mine.add(job.id);
    this.#put(job, askedAt);
    this.#cards.get(job.id).node.scrollIntoView({ block: "nearest" });
    announce(`Queued: ${title(job)}`);
    // If the filter excludes it, events before this answer were dropped.
    if (!this.#matches(job)) this.#look(job.id);
  }

  /** Reads the other jobs, on the page or followed before a reload, whose events may be missed. */
  #lookForOthers(ids) {
    const shown = [...this.#cards].filter(({ job }) => isActive(job)).map(({ job }) => job.id);
    const lost = this.#mine.all.filter((id) => !this.#cards.get(id));
    for (const id of new Set([...shown, ...lost])) if (!ids.has(id)) this.#look(id);
  }

  async #look(id) {
    const askedAt = performance.now();
    try {
      const job = await getJson(`v1/jobs/${encodeURIComponent(id)}`);
      if (this.#cards.get(id) || isActive(job)) this.#put(job, askedAt);
      else this.#mine.drop(id); // it has ended, and is on a later page
    } catch (error) {
      if (error.status === 404) this.#forget(id);
      else setText(byId("gallery-error"), error.message);
    }
  }

  #dropMissing(page, oldest, askedAt) {
    const ids = new Set(page.data.map(({ id }) => id));
    for (const { job, heardAt } of [...this.#cards]) {
      const isBelow = oldest && isOlder(job, oldest);
      if (!ids.has(job.id) && !isBelow && !this.#isKept(job.id) && heardAt < askedAt) this.#remove(job.id);
    }
  }

  async #more() {
    if (!this.#cursor || this.#isReading) return;
    const askedAt = performance.now();
    const page = await this.#read(NEXT_PAGE, this.#cursor);
    if (!page) return;
    for (const job of page.data) this.#put(job, askedAt);
    this.#setCursor(page.next_cursor);
  }

  get #isReading() {
    return byId("gallery").getAttribute("aria-busy") === "true";
  }

  /** Reads a page of jobs; returns null on an error or if a later read replaces it. */
  async #read(limit, cursor) {
    this.#reading.abort();
    const { signal } = (this.#reading = new AbortController());
    byId("gallery").setAttribute("aria-busy", "true");
    try {
      const page = await readPage({ ...this.#query, limit }, cursor, signal);
      setText(byId("gallery-error"), "");
      return page;
    } catch (error) {
      if (!signal.aborted) setText(byId("gallery-error"), error.message);
      return null;
    } finally {
      if (!signal.aborted) byId("gallery").setAttribute("aria-busy", "false");
    }
  }

  #setCursor(cursor) {
    this.#cursor = cursor;
    byId("more").hidden = !cursor;
    this.#ahead.disconnect();
    this.#ahead.observe(byId("more")); // reports again whether it is near
    this.#renderEmpty();
  }

  /** Shows the job as of `heardAt`, unless its card is newer. */
  #put(job, heardAt) {
    const card = this.#cards.of(job);
    byId("empty").hidden = true;
    if (card.heardAt > heardAt) return;
    const before = card.heardAt && card.job.state;
    card.update(job, heardAt);
    this.#viewer.update(job);
    this.#positions.consider(job);
    const hasEnded = before && before !== job.state && !isActive(job);
    if (hasEnded && this.#mine.has(job.id)) announce(`${progress(job)}: ${title(job)}`);
  }

  #forget(id) {
    this.#mine.drop(id);
    this.#viewer.forget(id);
    this.#remove(id);
  }

  #remove(id) {
    this.#positions.drop(id);
    this.#cards.remove(id);
    this.#renderEmpty();
  }

  #renderEmpty() {
    byId("empty").hidden = this.#cards.size > 0 || this.#isReading;
    const none = Object.keys(this.#query).length ? "No such jobs." : NO_JOBS;
    setText(byId("empty"), this.#cursor ? "None among the latest." : none);
  }

  #showPlace(id, place) {
    const card = this.#cards.get(id);
    if (card?.job.state === "queued") card.place = place;
    if (card) this.#viewer.place(id, place);
  }

  /** Whether the job stays although the filter excludes it. */
  #isKept(id) {
    return Object.keys(this.#query).length > 0 && this.#mine.has(id) && Boolean(this.#cards.get(id));
  }

  #matches(job) {
    return Object.entries(this.#query).every(([name, value]) => job[name] === value);
  }

  /** Whether the job belongs below the last card, so that the next page contains it. */
  #isBelow(job) {
    const last = this.#cards.last;
    return this.#cursor !== null && last && isOlder(job, last.job);
  }
}
