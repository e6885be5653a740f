import { announce } from "./announcer.js";
import { element } from "./dom.js";

const SHOWN_MS = 1_500;

/** Copies a text to the clipboard, and confirms it on the button. */
export async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    copyBySelection(text, button); // no clipboard API on http, or permission denied
  }
  const label = button.textContent;
  button.textContent = "Copied";
  button.disabled = true;
  setTimeout(() => {
    button.textContent = label;
    button.disabled = false;
  }, SHOWN_MS);
  announce("Copied");
}

function copyBySelection(text, button) {
  const area = element("textarea", { class: "offscreen", readonly: "" });
  area.value = text;
  button.after(area);
  area.select();
  document.execCommand("copy");
  area.remove();
  button.focus();
}
