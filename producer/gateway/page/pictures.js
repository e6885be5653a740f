import { getBlob } from "./api.js";
import { element } from "./dom.js";
import { title } from "./words.js";

const pictureOf = new WeakMap();
const RETRY_MS = 10_000;
const near = new IntersectionObserver(onNear, { rootMargin: "600px" });

/** A picture, fetched while it is held: an <img> cannot send the API key. */
export class Picture {
  #loading = null;
  #holders = 0;

  constructor(url, name, words) {
    this.url = url;
    this.name = name;
    this.words = words;
    this.size = "";
    this.seed = null;
  }

  /** Returns an object URL, valid until the last holder releases it. Throws `ApiError`. */
  hold() {
    this.#holders += 1;
    this.#loading ??= this.#fetch();
    return this.#loading;
  }

  release() {
    this.#holders -= 1;
    if (this.#holders > 0) return;
    this.#loading?.then(URL.revokeObjectURL, () => {});
    this.#loading = null;
  }

  async #fetch() {
    try {
      return URL.createObjectURL(await getBlob(`${this.url}?redirect=false`)); // the CSP forbids other hosts
    } catch (error) {
      this.#loading = null;
      throw error;
    }
  }
}

/** Returns a job's drawn pictures, else its input picture. */
export function picturesOf(job) {
  const images = job.result?.images ?? [];
  if (images.length) return images.map((image, i) => drawn(job, image, i));
  return job.input_url ? [new Picture(job.input_url, job.id, title(job))] : [];
}

function drawn(job, image, i) {
  const { seed, images } = job.result;
  const ending = image.key.slice(image.key.lastIndexOf("."));
  const words = images.length > 1 ? `${title(job)} (${i + 1} of ${images.length})` : title(job);
  const picture = new Picture(image.url, `${job.id}-${i}${ending}`, words);
  picture.size = `${image.width} × ${image.height} pixels`;
  picture.seed = seed === null ? null : seed + i;
  return picture;
}

/** Makes buttons that load their pictures near the viewport; `onOpen` gets the index. */
export function tiles(pictures, onOpen) {
  return pictures.map((picture, index) => {
    const button = element("button", { class: "tile", type: "button", "aria-haspopup": "dialog" });
    button.addEventListener("click", () => onOpen(index));
    pictureOf.set(button, picture);
    near.observe(button);
    return button;
  });
}

export function nameTile(button) {
  const { words } = pictureOf.get(button);
  button.setAttribute("aria-label", `Enlarge: ${words}`);
  button.querySelector("img")?.setAttribute("alt", words);
}

export function forgetTile(button) {
  near.unobserve(button);
  empty(button);
}

function onNear(entries) {
  for (const { isIntersecting, target } of entries) {
    if (isIntersecting) fill(target, pictureOf.get(target));
    else empty(target);
  }
}

function mayPass({ status }) {
  return !status || status === 429 || status >= 500;
}

async function fill(button, picture) {
  if (button.dataset.held) return;
  button.dataset.held = "yes";
  try {
    const src = await picture.hold();
    if (!button.dataset.held) return;
    button.replaceChildren(element("img", { src, alt: picture.words, decoding: "async" }));
    nameTile(button);
  } catch (error) {
    empty(button);
    button.replaceChildren(element("span", { class: "error" }, error.message));
    button.setAttribute("aria-label", `${picture.words}: ${error.message}`);
    if (mayPass(error)) setTimeout(() => again(button), RETRY_MS);
  }
}

function again(button) {
  if (!button.isConnected) return;
  near.unobserve(button);
  near.observe(button);
}

function empty(button) {
  if (!button.dataset.held) return;
  delete button.dataset.held;
  button.replaceChildren();
  pictureOf.get(button).release();
}
