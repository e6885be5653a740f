import { announce } from "./announcer.js";
import { element } from "./dom.js";

const SHOWN_MS = 1_500;

/** Puts a text into the clipboard, and says at the button that it is there. */
export async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    copyBySelection(text, button); // there is no such clipboard on http, or it is not allowed
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
