import { isActive } from "./actions.js";
import { element, lines, setText } from "./dom.js";
import { layOut } from "./mosaic.js";
import { forgetTile, nameTile, picturesOf, tiles } from "./pictures.js";
import { Preview } from "./preview.js";
import { Toolbar } from "./toolbar.js";
import { fullTime, measured, otherCaptions, progress, title, when } from "./words.js";

/** A job in the gallery. `heardAt` is the time of the shown state, `place` that in the queue. */
export class Card {
  #pictures = [];
  #preview = new Preview();
  #place = null;

  constructor(job, { onChanged, onOpen }) {
    const titleId = `title-${job.id}`;
    this.onOpen = onOpen;
    this.toolbar = new Toolbar({ describedBy: titleId, onChanged });
    this.parts = build(job, titleId, this.toolbar);
    this.node = this.parts.card;
    this.parts.open.addEventListener("click", () => onOpen(this.job, 0));
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

  get place() {
    return this.#place;
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
    setText(parts.open, title(job));
    setText(parts.state, progress(job, this.#place));
    parts.state.title = measured(job);
    renderSteps(parts.steps, job);
    parts.warnings.replaceChildren(...lines(job.result?.warnings));
    setText(parts.code, job.failure?.code ?? "");
    setText(parts.message, job.failure?.message ?? "");
    parts.captions.replaceChildren(...lines(otherCaptions(job)));
    this.tick();
  }

  /** Moves the focus to the card if the focused button is hidden. */
  #renderActions() {
    const focused = document.activeElement;
    this.toolbar.show(this.job);
    if (this.node.contains(focused) && focused.hidden) this.node.focus();
  }

  #renderPictures() {
    const wanted = picturesOf(this.job);
    const preview = wanted.length ? null : this.job.progress?.preview_url;
    this.#preview.show(preview, this.parts.pictures, `${title(this.job)}, as far as it is drawn`);
    if (wanted.map(({ url }) => url).join() !== this.#pictures.map(({ url }) => url).join()) {
      this.#forgetPictures();
      this.#pictures = wanted;
      this.parts.pictures.replaceChildren(...tiles(wanted, (index) => this.onOpen(this.job, index)));
      layOut(this.parts.pictures);
    }
    for (const [i, picture] of this.#pictures.entries()) picture.words = wanted[i].words;
    for (const tile of this.#tiles()) nameTile(tile);
  }

  get pictures() {
    return this.#pictures;
  }

  #forgetPictures() {
    for (const tile of this.#tiles()) forgetTile(tile);
  }

  #tiles() {
    return this.parts.pictures.querySelectorAll(".tile");
  }
}

/** Renders a running job's progress bar, indeterminate if the model reports no steps. */
export function renderSteps(bar, { state, progress: steps }) {
  bar.hidden = state !== "running";
  bar.setAttribute("aria-valuetext", steps ? `step ${steps.step} of ${steps.of}` : "running");
  if (steps) [bar.max, bar.value] = [steps.of, steps.step];
  else bar.removeAttribute("value");
}

function build(job, titleId, toolbar) {
  const parts = {
    pictures: element("div", { class: "pictures" }),
    open: element("button", { id: titleId, class: "open", type: "button", "aria-haspopup": "dialog" }),
    captions: element("ul", { class: "captions" }),
    state: element("p", { class: "state" }),
    steps: element("progress", { class: "steps", hidden: "", "aria-labelledby": titleId }),
    warnings: element("ul", { class: "warnings note" }),
    code: element("code"),
    message: element("span"),
    time: element("time", {
      datetime: new Date(job.created_at * 1_000).toISOString(),
      title: fullTime(job.created_at),
    }),
  };
  parts.card = assemble(job, titleId, parts, toolbar);
  return parts;
}

function assemble(job, titleId, parts, toolbar) {
  const failure = element("p", { class: "failure" }, parts.code, parts.message);
  const frame = element("div", { class: "frame" }, parts.pictures, failure);
  const tools = element("span", { class: "tools" }, ...toolbar.nodes);
  const text = element("div", { class: "text" },
    element("h3", {}, parts.open), parts.captions, parts.state, parts.steps, parts.warnings,
    toolbar.error, element("footer", {}, parts.time, tools));
  const attributes = { class: "card", tabindex: "-1", "aria-labelledby": titleId };
  const card = element("article", attributes, frame, text);
  card.dataset.job = job.id;
  card.dataset.task = job.task;
  card.classList.toggle("new", isActive(job));
  return card;
}
