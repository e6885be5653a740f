import { getJson } from "./api.js";
import { byId, element } from "./dom.js";

const viewer = byId("viewer");
const raw = byId("raw");
const part = (name) => viewer.querySelector(`.${name}`);
let shown = { pictures: [], index: 0 };

/** Shows one of a job's pictures as large as fits, with the way to its neighbours. */
export function showPicture(pictures, index) {
  shown = { pictures, index };
  render();
  if (!viewer.open) viewer.showModal();
}

function render() {
  const { pictures, index } = shown;
  byId("viewer-title").textContent = pictures[index].words;
  part("details").textContent = pictures[index].details;
  part("error").textContent = "";
  part("previous").hidden = part("next").hidden = pictures.length < 2;
  renderImage(pictures[index]);
}

async function renderImage(picture) {
  part("enlarged").replaceChildren();
  part("download").hidden = true;
  try {
    const src = await picture.load();
    if (picture !== shown.pictures[shown.index]) return;
    part("enlarged").replaceChildren(element("img", { src, alt: picture.words }));
    part("download").setAttribute("href", src);
    part("download").setAttribute("download", picture.name);
    part("download").hidden = false;
  } catch (error) {
    part("error").textContent = error.message;
  }
}

function turn(steps) {
  const { pictures, index } = shown;
  showPicture(pictures, (index + steps + pictures.length) % pictures.length);
}

/** Shows a job's record; with an API key, a plain link could not. */
export async function showJson(url) {
  raw.querySelector("pre").textContent = "";
  raw.showModal();
  try {
    raw.querySelector("pre").textContent = JSON.stringify(await getJson(url), null, 2);
  } catch (error) {
    raw.querySelector("pre").textContent = error.message;
  }
}

part("previous").addEventListener("click", () => turn(-1));
part("next").addEventListener("click", () => turn(1));
viewer.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") turn(-1);
  if (event.key === "ArrowRight") turn(1);
});
for (const dialog of [viewer, raw]) {
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // the backdrop
  });
}
