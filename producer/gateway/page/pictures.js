import { getBlob } from "./api.js";
import { element } from "./dom.js";
import { showPicture } from "./dialogs.js";

const pictureOf = new WeakMap();
const RETRY_MS = 10_000;
const observer = new IntersectionObserver(onSeen, { rootMargin: "400px" });

/** Fetched once it is nearly on the screen, or asked for: an <img> could not send the API key. */
export class Picture {
  #loading = null;

  constructor(url, name) {
    this.url = url;
    this.name = name;
    this.words = "";
    this.details = "";
  }

  /** An object URL, which `release` takes back. Raises `ApiError`. */
  load() {
    this.#loading ??= this.#fetch();
    return this.#loading;
  }

  release() {
    this.#loading?.then(URL.revokeObjectURL, () => {});
  }

  async #fetch() {
    try {
      return URL.createObjectURL(await getBlob(`${this.url}?redirect=false`)); // a store is another site
    } catch (error) {
      this.#loading = null;
      throw error;
    }
  }
}

/** Buttons with the pictures in them; each shows its picture larger. */
export function tiles(pictures) {
  return pictures.map((picture, index) => {
    const button = element("button", { class: "tile", type: "button", "aria-haspopup": "dialog" });
    button.addEventListener("click", () => showPicture(pictures, index));
    pictureOf.set(button, picture);
    observer.observe(button);
    return button;
  });
}

export function nameTile(button) {
  const { words } = pictureOf.get(button);
  button.setAttribute("aria-label", `Enlarge: ${words}`);
  button.querySelector("img")?.setAttribute("alt", words);
}

export function forgetTile(button) {
  observer.unobserve(button);
  pictureOf.get(button).release();
}

function onSeen(entries) {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    observer.unobserve(target);
    fill(target, pictureOf.get(target));
  }
}

function mayPass({ status }) {
  return !status || status === 429 || status >= 500;
}

async function fill(button, picture) {
  try {
    const src = await picture.load();
    button.replaceChildren(element("img", { src, alt: picture.words }));
    nameTile(button);
  } catch (error) {
    button.replaceChildren(element("span", { class: "error" }, error.message));
    button.setAttribute("aria-label", `${picture.words}: ${error.message}`);
    if (mayPass(error)) setTimeout(() => button.isConnected && observer.observe(button), RETRY_MS);
  }
}
