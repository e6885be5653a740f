import { getBlob } from "./api.js";
import { element } from "./dom.js";

/** What is drawn so far, where the pictures will be: the latest that could be fetched. */
export class Preview {
  #url = "";
  #fetched = "";
  #isFetching = false;
  #image = element("img", { class: "preview" });

  /** Shows what is at `url` in `place`, as soon as it is here; nothing where there is no URL. */
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
      // It is gone already, or the next one may come.
    } finally {
      this.#isFetching = false;
    }
  }

  #put(blob, place) {
    if (!this.#url) return; // the job has ended meanwhile
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
