import { byId, element, setText } from "./dom.js";

/** The input for the pictures of jobs; calls `onChosen` after a choice. */
export class PictureField {
  files = [];

  constructor(about, onChosen) {
    this.name = about.name;
    this.input = element("input", { id: "picture", class: "offscreen", type: "file", accept: "image/*",
      multiple: "" });
    this.chosen = element("span", { class: "chosen" });
    this.node = element("div", { class: "field wide picture" }, this.input, element("label",
      { id: "drop", for: "picture" }, element("strong", {}, "Choose pictures"), " or drop or paste them here",
      this.chosen));
    this.input.addEventListener("change", () => {
      this.take([...this.input.files]);
      this.input.value = ""; // the same file can be chosen again
      onChosen();
    });
  }

  take(files) {
    this.files = files;
    setText(this.chosen, files.map(({ name }) => name).join(", "));
  }
}

/** Passes pictures that are dropped on the form or pasted anywhere to `onFiles`. */
export function prepareFiles(onFiles) {
  document.addEventListener("paste", (event) => onPaste(event, onFiles));
  prepareDrop(onFiles);
}

/** Ignores text pasted into a field, even if the clipboard also has a picture of it. */
function onPaste(event, onFiles) {
  const { files, types } = event.clipboardData;
  const isText = event.target.matches?.("input, textarea") && types.includes("text/plain");
  if (!files.length || isText || document.querySelector("dialog[open]")) return;
  event.preventDefault();
  onFiles([...files]);
}

/** Accepts drops on the form; elsewhere, keeps the browser from opening the file. */
function prepareDrop(onFiles) {
  const panel = byId("composer");
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  const isOver = (event) => panel.contains(event.target);
  document.addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = isOver(event) ? "copy" : "none";
    panel.classList.toggle("over", isOver(event));
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) panel.classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    panel.classList.remove("over");
    if (isOver(event)) onFiles([...event.dataTransfer.files]);
  });
}
