import { getJson } from "./api.js";
import { element, setText } from "./dom.js";
import { showFacts } from "./facts.js";

const FEW = 12; // objects that are named where there is little room
const whole = new Map(); // the vocabularies that were asked for, by name and version of their models

/** The words that a model knows: a list of models has the first ones, and to open this asks for all. */
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

/** What somebody who describes a picture should know, or "". */
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
