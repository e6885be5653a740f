import { getBlob } from "./api.js";
import { element } from "./dom.js";

/** The latest preview of a running job, in the place of its pictures. */
export class Preview {
  #url = "";
  #fetched = "";
  #isFetching = false;
  #image = element("img", { class: "preview" });

  /** Fetches `url` and shows it in `place`; without a URL, clears the preview. */
  show(url, place, words) {
    this.#url = url ?? "";
    this.#image.alt = words;
    if (!this.#url) this.#clear();
    else if (!this.#isFetching) this.#fetch(place);
  }

  async #fetch(place) {
    this.#isFetching = true;
    try {
      while (this.#url && this.#url !== this.#fetched) {
        this.#fetched = this.#url;
        this.#put(await getBlob(`${this.#url}&redirect=false`), place);
      }
    } catch {
      // It is deleted already; the next one may follow.
    } finally {
      this.#isFetching = false;
    }
  }

  #put(blob, place) {
    if (!this.#url) return; // the job has ended
    this.#release();
    this.#image.src = URL.createObjectURL(blob);
    place.replaceChildren(this.#image);
  }

  #clear() {
    this.#image.remove();
    this.#release();
    this.#fetched = "";
  }

  #release() {
    if (this.#image.src) URL.revokeObjectURL(this.#image.src);
    this.#image.removeAttribute("src");
  }
}
