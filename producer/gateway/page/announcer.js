import { byId } from "./dom.js";

const PAUSE_MS = 1_000;
let heard = [];
let timer = 0;

/** Announces a visible change to screen readers; changes within a second are merged. */
export function announce(text) {
  heard.push(text);
  timer ||= setTimeout(say, PAUSE_MS);
}

function say() {
  const [last, others] = [heard.at(-1), heard.length - 1];
  byId("announcer").textContent = others ? `${last}. And ${others} more changes.` : last;
  heard = [];
  timer = 0;
}
