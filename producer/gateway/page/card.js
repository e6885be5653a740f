import { key, local, post } from "./api.js";
import { showJson } from "./dialogs.js";
import { element, setText } from "./dom.js";
import { layOut } from "./mosaic.js";
import { Picture, forgetTile, nameTile, tiles } from "./pictures.js";
import { Preview } from "./preview.js";
import { fullTime, measured, progress, title, unknownWords, when } from "./words.js";

const CANCELABLE = ["queued", "running"];
const RETRYABLE = ["failed", "canceled", "expired"];

/** One job in the gallery. `heardAt` is the time of the news it shows, `place` its place in the queue. */
export class Card {
  #pictures = [];
  #preview = new Preview();
  #asking = false;
  #place = null;

  constructor(job, { onCanceled, onRetried }) {
    this.parts = build(job);
    this.node = this.parts.card;
    this.parts.cancel.addEventListener("click", () => this.#ask(this.job.cancel_url, onCanceled));
    this.parts.retry.addEventListener("click", () => this.#ask(this.job.retry_url, onRetried));
    this.parts.json.addEventListener("click", (event) => this.#openJson(event));
  }

  update(job, heardAt) {
    this.job = job;
    this.heardAt = heardAt;
    if (job.state !== "queued") this.#place = null;
    else if (job.position !== null) this.#place = job;
    this.#renderPictures();
    this.#renderText();
    this.#renderActions();
  }

  set place(place) {
    this.#place = place;
    setText(this.parts.state, progress(this.job, place));
  }

  tick() {
    setText(this.parts.time, when(this.job.created_at));
  }

  remove() {
    this.#forgetPictures();
    this.#preview.show("");
    this.node.remove();
  }

  #renderText() {
    const { job, parts } = this;
    this.node.dataset.state = job.state;
    setText(parts.title, title(job));
    setText(parts.state, progress(job, this.#place));
    parts.state.title = measured(job);
    parts.steps.hidden = !job.progress;
    if (job.progress) [parts.steps.max, parts.steps.value] = [job.progress.of, job.progress.step];
    setText(parts.unknown, unknownWords(job.result));
    setText(parts.code, job.failure?.code ?? "");
    setText(parts.message, job.failure?.message ?? "");
    const others = job.result?.captions?.slice(1) ?? [];
    parts.captions.replaceChildren(...others.map(({ text }) => element("li", {}, text)));
    this.tick();
  }

  /** A button that goes away while it has the focus hands it to the card. */
  #renderActions() {
    const { job, parts } = this;
    const focused = document.activeElement;
    parts.cancel.hidden = !CANCELABLE.includes(job.state);
    parts.retry.hidden = !RETRYABLE.includes(job.state);
    if (this.node.contains(focused) && focused.hidden) this.node.focus();
  }

  #renderPictures() {
    const wanted = picturesOf(this.job);
    const preview = wanted.length ? null : this.job.progress?.preview_url;
    this.#preview.show(preview, this.parts.pictures, `${title(this.job)}, as far as it is drawn`);
    if (wanted.map(({ url }) => url).join() !== this.#pictures.map(({ url }) => url).join()) {
      this.#forgetPictures();
      this.#pictures = wanted;
      this.parts.pictures.replaceChildren(...tiles(wanted));
      layOut(this.parts.pictures);
    }
    for (const [i, picture] of this.#pictures.entries()) picture.words = wanted[i].words;
    for (const tile of this.#tiles()) nameTile(tile);
  }

  #forgetPictures() {
    for (const tile of this.#tiles()) forgetTile(tile);
  }

  #tiles() {
    return this.parts.pictures.querySelectorAll(".tile");
  }

  async #ask(url, onAnswer) {
    if (this.#asking) return;
    this.#asking = true;
    setText(this.parts.error, "");
    try {
      const askedAt = performance.now();
      onAnswer(await post(url), askedAt);
    } catch (error) {
      setText(this.parts.error, error.message);
    } finally {
      this.#asking = false;
    }
  }

  #openJson(event) {
    if (!key.get()) return;
    event.preventDefault();
    showJson(this.job.status_url);
  }
}

function picturesOf(job) {
  const images = job.result?.images ?? [];
  if (images.length) return images.map(drawn.bind(null, job));
  return job.input_url ? [given(job)] : [];
}

function drawn(job, image, i) {
  const { seed, images } = job.result;
  const ending = image.key.slice(image.key.lastIndexOf("."));
  const picture = new Picture(image.url, `${job.id}-${i}${ending}`);
  picture.words = images.length > 1 ? `${title(job)} (${i + 1} of ${images.length})` : title(job);
  const size = `${image.width} × ${image.height} pixels`;
  picture.details = seed === null ? size : `Seed ${seed + i}, ${size}`;
  return picture;
}

function given(job) {
  const picture = new Picture(job.input_url, job.id);
  picture.words = title(job);
  return picture;
}

function build(job) {
  const titleId = `title-${job.id}`;
  const parts = {
    pictures: element("div", { class: "pictures" }),
    title: element("h3", { id: titleId }),
    captions: element("ul", { class: "captions" }),
    state: element("p", { class: "state" }),
    steps: element("progress", { class: "steps", hidden: "", "aria-labelledby": titleId }),
    unknown: element("p", { class: "note" }),
    code: element("code"),
    message: element("span"),
    error: element("p", { class: "error", role: "alert" }),
    time: element("time", {
      datetime: new Date(job.created_at * 1_000).toISOString(),
      title: fullTime(job.created_at),
    }),
    json: element("a", { class: "json", href: local(job.status_url), target: "_blank" }, "JSON"),
    cancel: element("button", { class: "cancel", type: "button" }, "Cancel"),
    retry: element("button", { class: "retry", type: "button" }, "Retry"),
  };
  for (const name of ["json", "cancel", "retry"]) parts[name].setAttribute("aria-describedby", titleId);
  parts.card = assemble(job, titleId, parts);
  return parts;
}

function assemble(job, titleId, parts) {
  const failure = element("p", { class: "failure" }, parts.code, parts.message);
  const foot = element("footer", {}, parts.time, parts.json, parts.cancel, parts.retry);
  const text = element("div", { class: "text" },
    parts.title, parts.captions, parts.state, parts.steps, parts.unknown, parts.error, foot);
  const attributes = { class: "card", tabindex: "-1", "aria-labelledby": titleId };
  const card = element("article", attributes, parts.pictures, failure, text);
  card.dataset.job = job.id;
  card.dataset.task = job.task;
  return card;
}
