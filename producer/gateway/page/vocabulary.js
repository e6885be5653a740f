import { getJson } from "./api.js";
import { element, setText } from "./dom.js";
import { showFacts } from "./facts.js";

const FEW = 12; // max objects in a note
const whole = new Map(); // fetched vocabularies, by name and version of the model

/** Makes the list of words that a model knows; opening it fetches those beyond the first ones. */
export function makeVocabulary() {
  const words = element("div", { class: "words", role: "region", "aria-label": "Words", tabindex: "0" },
    element("dl", { class: "facts" }));
  const details = element("details", { class: "vocabulary" }, element("summary"), words,
    element("p", { class: "error" }));
  details.addEventListener("toggle", () => details.open && readAll(details));
  return details;
}

export function renderVocabulary(details, model) {
  details.hidden = !model.vocabulary;
  if (details.hidden) return;
  const changed = details.model && keyOf(details.model) !== keyOf(model);
  details.model = model;
  show(details);
  if (changed && details.open) readAll(details);
}

/** Returns a note on the words for a prompt, or "". */
export function vocabularyNote({ vocabulary }, kind) {
  if (!vocabulary || kind !== "txt2img") return "";
  const { count, objects } = vocabulary;
  const listed = `${count.toLocaleString("en")} words, which are listed under Models.`;
  if (!objects.length) return `It knows ${listed}`;
  const few = objects.slice(0, FEW).join(", ") + (objects.length > FEW ? ", …" : "");
  return `It can draw ${few}. It knows ${listed}`;
}

async function readAll(details) {
  const { model } = details;
  const { count, objects, words } = model.vocabulary;
  if (count === objects.length + words.length || whole.has(keyOf(model))) return;
  try {
    const found = await getJson(`v1/models/${encodeURIComponent(model.name)}`);
    if (found.vocabulary) whole.set(keyOf(found), found.vocabulary);
    setText(details.querySelector(".error"), "");
    show(details);
  } catch (error) {
    setText(details.querySelector(".error"), error.message);
  }
}

function show(details) {
  const { model } = details;
  const { count, objects, words } = whole.get(keyOf(model)) ?? model.vocabulary;
  const left = count - objects.length - words.length;
  setText(details.querySelector("summary"), `${count.toLocaleString("en")} words that it knows`);
  showFacts(details.querySelector("dl"), [
    { name: "Objects", value: objects.join(", ") },
    { name: objects.length ? "Other words" : "Words", value: words.join(", ") },
    { name: "And", value: left ? `${left.toLocaleString("en")} more` : "" },
  ]);
}

const keyOf = ({ name, version }) => `${name} ${version}`;
