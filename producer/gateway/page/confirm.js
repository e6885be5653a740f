import { byId, setText } from "./dom.js";

const dialog = byId("confirm");

/** Asks the user to confirm; resolves to whether they did. */
export function confirmed(title, text, does) {
  setText(byId("confirm-title"), title);
  setText(byId("confirm-text"), text);
  setText(byId("confirm-yes"), does);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
