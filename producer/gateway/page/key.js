import { access, key } from "./api.js";
import { byId, setText } from "./dom.js";

/** Shows the form for an API key when the gateway needs one; calls `onChange` on each change. */
export function prepareKey(onChange) {
  access.addEventListener("unauthorized", ask);
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    setText(byId("key-error"), "");
    key.use(byId("key").value);
    byId("key").value = "";
    showKey();
    onChange();
  });
  byId("forget").addEventListener("click", () => {
    key.forget();
    showKey();
    onChange();
  });
  showKey();
}

function ask() {
  if (key.get()) setText(byId("key-error"), "The gateway refused this key.");
  key.forget();
  showKey();
  byId("key-form").hidden = false;
  byId("key").focus();
}

function showKey() {
  byId("key-form").hidden = true;
  byId("key-in-use").hidden = !key.get();
}
