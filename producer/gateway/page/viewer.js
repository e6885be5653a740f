import { renderSteps } from "./card.js";
import { copy } from "./copy.js";
import { byId, element, lines, setText } from "./dom.js";
import { showFacts } from "./facts.js";
import { picturesOf } from "./pictures.js";
import { Preview } from "./preview.js";
import { Toolbar } from "./toolbar.js";
import { factsOf, measured, otherCaptions, progress, title } from "./words.js";

const dialog = byId("viewer");
const part = (name) => dialog.querySelector(`.${name}`);

/** The dialog that shows a job with an enlarged picture and its facts; arrows go to the next. */
export class Viewer {
  #job = null;
  #index = 0;
  #picture = null;
  #place = null;
  #preview = new Preview();

  /** `beside` returns the picture some steps from a job's picture, or null. */
  constructor({ onChanged, beside }) {
    this.beside = beside;
    this.toolbar = new Toolbar({ onChanged, index: () => this.#index });
    part("tools").append(...this.toolbar.nodes);
    part("tools").after(this.toolbar.error);
    part("previous").addEventListener("click", () => this.#turn(-1));
    part("next").addEventListener("click", () => this.#turn(1));
    part("copy").addEventListener("click", () => copy(title(this.#job), part("copy")));
    dialog.addEventListener("keydown", (event) => this.#onKey(event));
    dialog.addEventListener("close", () => {
      this.#close();
      const { activeElement } = document;
      const isLost = activeElement === document.body || dialog.contains(activeElement);
      if (isLost) byId("jobs").focus(); // the card that opened it is gone
    });
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close(); // a click on the backdrop
    });
  }

  open(job, index) {
    this.#close();
    [this.#job, this.#index, this.#place] = [job, index, null];
    this.#render();
    if (dialog.open) return;
    dialog.showModal();
    part("enlarged").focus();
  }

  update(job) {
    if (this.#job?.id !== job.id) return;
    this.#job = job;
    this.#render();
  }

  place(id, place) {
    if (this.#job?.id !== id) return;
    this.#place = place;
    setText(part("state"), progress(this.#job, place));
  }

  forget(id) {
    if (this.#job?.id !== id) return;
    const next = this.beside(id, this.#index, 1) ?? this.beside(id, this.#index, -1);
    if (next && next.job.id !== id) this.open(next.job, next.index);
    else dialog.close();
  }

  #close() {
    this.#job = null;
    this.#preview.show("");
    this.#show(null);
  }

  #onKey(event) {
    if (event.target.matches("input, textarea, select")) return;
    if (event.key === "ArrowLeft") this.#turn(-1);
    if (event.key === "ArrowRight") this.#turn(1);
  }

  #turn(steps) {
    const next = this.beside(this.#job.id, this.#index, steps);
    if (next) this.open(next.job, next.index);
  }

  #render() {
    const job = this.#job;
    const pictures = picturesOf(job);
    const picture = pictures[this.#index];
    Object.assign(dialog.dataset, { job: job.id, state: job.state });
    setText(byId("viewer-title"), title(job));
    setText(part("state"), progress(job, this.#place ?? job));
    part("state").title = measured(job);
    renderSteps(part("steps"), job);
    part("warnings").replaceChildren(...lines(job.result?.warnings));
    setText(part("failed"), job.failure?.message ?? "");
    part("captions").replaceChildren(...lines(otherCaptions(job)));
    showFacts(part("facts"), factsOf(job, picture));
    this.toolbar.show(job);
    this.#renderWays();
    if (picture?.url !== this.#picture?.url || !picture) this.#show(picture);
    this.#preview.show(picture ? null : job.progress?.preview_url, part("enlarged"), title(job));
  }

  #renderWays() {
    part("previous").hidden = !this.beside(this.#job.id, this.#index, -1);
    part("next").hidden = !this.beside(this.#job.id, this.#index, 1);
    if (dialog.contains(document.activeElement?.closest("[hidden]"))) part("enlarged").focus();
  }

  async #show(picture) {
    this.#picture?.release();
    this.#picture = picture ?? null;
    part("download").hidden = true;
    setText(part("unread"), "");
    part("enlarged").replaceChildren();
    if (!picture) return;
    try {
      const src = await picture.hold();
      if (picture === this.#picture) showImage(picture, src);
    } catch (error) {
      if (picture === this.#picture) setText(part("unread"), error.message);
    }
  }
}

function showImage(picture, src) {
  part("enlarged").replaceChildren(element("img", { src, alt: picture.words }));
  part("download").setAttribute("href", src);
  part("download").setAttribute("download", picture.name);
  part("download").hidden = false;
}
