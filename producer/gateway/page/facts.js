import { copy } from "./copy.js";
import { element, nameButton } from "./dom.js";

/**
 * Shows names and values, except empty ones, in a description list. Renders only on a change, so
 * as not to disturb screen readers. `isCopied` adds a copy button.
 */
export function showFacts(list, facts) {
  const there = facts.filter(({ value }) => value !== null && value !== undefined && value !== "");
  const shown = JSON.stringify(there);
  if (list.dataset.shown === shown) return;
  list.dataset.shown = shown;
  list.replaceChildren(...there.flatMap(({ name, value, isCopied }) => {
    const dd = element("dd", {}, String(value));
    if (isCopied) dd.append(" ", copyButton(name, String(value)));
    return [element("dt", {}, name), dd];
  }));
}

function copyButton(name, value) {
  const button = element("button", { type: "button", class: "quiet" }, "Copy");
  nameButton(button, `Copy the ${name.toLowerCase()}`);
  button.addEventListener("click", () => copy(value, button));
  return button;
}
