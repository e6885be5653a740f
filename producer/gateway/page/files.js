import { byId, element, setText } from "./dom.js";

/** Where the pictures for a job are chosen, or dropped; `onChosen` is told of them. */
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
      this.input.value = ""; // so that the same file can be chosen again
      onChosen();
    });
  }

  take(files) {
    this.files = files;
    setText(this.chosen, files.map(({ name }) => name).join(", "));
  }
}

/** Pictures that are dropped on the form, or pasted anywhere, go to `onFiles`. */
export function prepareFiles(onFiles) {
  document.addEventListener("paste", (event) => onPaste(event, onFiles));
  prepareDrop(onFiles);
}

/** Text that is pasted into a field stays text, also where a picture of it comes along. */
function onPaste(event, onFiles) {
  const { files, types } = event.clipboardData;
  const isText = event.target.matches?.("input, textarea") && types.includes("text/plain");
  if (!files.length || isText || document.querySelector("dialog[open]")) return;
  event.preventDefault();
  onFiles([...files]);
}

/** Files that miss the target are not opened instead of the page. */
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
