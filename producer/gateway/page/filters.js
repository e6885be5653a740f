import { cluster } from "./cluster.js";
import { byId, element, keep } from "./dom.js";
import { filterOf, inOrder } from "./kinds.js";

const STATES = [
  { name: "all", words: "All", query: {} },
  { name: "failed", words: "Failed", query: { state: "failed" } },
  { name: "running", words: "Running", query: { state: "running" } },
];

/** Sets up the gallery's filter; `onChosen` gets the query for jobs, or null for batch jobs. */
export function prepareFilters(onChosen) {
  let chosen = "all";
  const render = () => keep(byId("filter-choice"), filters(), ({ name }) => name, radio, (node, { name }) => {
    node.firstChild.checked = name === chosen;
  });
  byId("filter").addEventListener("change", ({ target }) => {
    chosen = target.value;
    onChosen(filters().find(({ name }) => name === chosen).query);
  });
  cluster.addEventListener("change", render);
  render();
}

function filters() {
  const kinds = inOrder(cluster.kinds).map((kind) => ({ name: kind, words: filterOf(kind), query: { task: kind } }));
  return [...STATES, ...kinds, { name: "batches", words: "Batches", query: null }];
}

function radio({ name, words }) {
  return element("label", {}, element("input", { type: "radio", name: "filter", value: name }), words);
}
