import { cluster } from "./cluster.js";
import { byId, element, keep, setText } from "./dom.js";
import { showFacts } from "./facts.js";
import { verbOf } from "./kinds.js";
import { makeVocabulary, renderVocabulary } from "./vocabulary.js";
import { bytes, duration } from "./words.js";

const WORDS = {
  loaded: "Loaded", loading: "Loading", unloaded: "Not loaded: a worker loads it once jobs wait for it",
  broken: "Broken", absent: "No live worker has it",
};

/** Sets up the view of all models: state, workers, memory and queues of each. */
export function prepareModels() {
  cluster.addEventListener("change", render);
}

function render() {
  setText(byId("models-error"), cluster.problem);
  byId("no-models").hidden = !cluster.isKnown || cluster.models.length > 0;
  const models = [...cluster.models].sort((a, b) => a.name.localeCompare(b.name));
  keep(byId("model-list"), models, ({ name }) => name, make, renderModel);
}

function make({ name }) {
  return element("li", { class: "panel model" },
    element("div", { class: "head" }, element("h3", {}, name), element("p", { class: "state" })),
    element("p", { class: "description" }),
    element("p", { class: "failure" }, element("code"), element("span")),
    element("dl", { class: "facts" }), makeVocabulary());
}

function renderModel(item, model) {
  const part = (name) => item.querySelector(name);
  item.dataset.state = model.state;
  item.dataset.model = model.name;
  setText(part(".state"), WORDS[model.state] ?? model.state);
  setText(part(".description"), model.description);
  setText(part(".failure code"), model.failure?.code ?? "");
  setText(part(".failure span"), model.failure?.message ?? "");
  showFacts(part(".facts"), factsOf(model));
  renderVocabulary(part(".vocabulary"), model);
}

function factsOf(model) {
  const kinds = Object.keys(model.kinds);
  return [
    { name: "Does", value: kinds.map((kind) => doesOf(model, kind)).join(", ") },
    { name: "Loaded on", value: cluster.holders(model.name).map(placeOf).join("; ") },
    { name: "Memory", value: model.peak_bytes ? `${bytes(model.peak_bytes)} at most` : "" },
    { name: "Queue", value: queueOf(model) },
    { name: "A run takes", value: kinds.map((kind) => runOf(model.kinds[kind])).filter(Boolean).join(", ") },
    { name: "Loads in", value: model.load_s ? duration(model.load_s) : "" },
    { name: "Also called", value: model.aliases.join(", ") },
    { name: "Version", value: model.version },
  ];
}

const doesOf = ({ default_for }, kind) =>
  `${verbOf(kind)}${default_for.includes(kind) ? " (default)" : ""}`;

const placeOf = ({ name, device }) => (device ? `${device} of ${name}` : name);

function queueOf(model) {
  const queues = cluster.queuesOf(model);
  const sum = (field) => queues.reduce((total, queue) => total + queue[field], 0);
  const paused = queues.some((queue) => queue.paused) ? ", paused" : "";
  return `${sum("depth")} waiting, ${sum("running")} running${paused}`;
}

function runOf({ run_s, max_batch }) {
  if (run_s === null) return "";
  return duration(run_s) + (max_batch > 1 ? ` (up to ${max_batch} at once)` : "");
}
