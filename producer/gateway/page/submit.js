import { post } from "./api.js";
import { byId, setText } from "./dom.js";

const ABOUT_THE_FILE = [400, 413, 415, 422];

/** `onJob` gets each accepted job, and when it was asked for. */
export function prepareForms(onJob) {
  prepareDraw(onJob);
  prepareCaption(onJob);
}

function prepareDraw(onJob) {
  const form = byId("draw");
  const draw = once(() => submitPrompt(onJob));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    draw();
  });
  byId("prompt").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    form.requestSubmit();
  });
  byId("temperature").addEventListener("input", showTemperature);
  showTemperature(); // a browser may bring back what was chosen before
}

function showTemperature() {
  setText(byId("temperature-value"), byId("temperature").value);
}

let unanswered = { request: "", key: "" };

async function submitPrompt(onJob) {
  const body = drawing();
  setText(byId("draw-error"), "");
  try {
    const askedAt = performance.now();
    onJob(await post("v1/jobs", body, { "Idempotency-Key": keyFor(body) }), askedAt);
    unanswered = { request: "", key: "" };
  } catch (error) {
    setText(byId("draw-error"), error.message);
  }
}

function drawing() {
  const seed = byId("seed").value;
  return {
    task: "txt2img",
    prompt: byId("prompt").value,
    count: byId("count").valueAsNumber,
    seed: seed === "" ? null : Number(seed),
    temperature: byId("temperature").valueAsNumber,
  };
}

/** The same key until there is an answer: a request that got lost may have made a job. */
function keyFor(body) {
  const request = JSON.stringify(body);
  if (request !== unanswered.request) unanswered = { request, key: randomKey() };
  return unanswered.key;
}

/** crypto.randomUUID exists on https only. */
function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function prepareCaption(onJob) {
  const describe = (files) => submitPictures([...files], onJob);
  byId("caption").addEventListener("submit", (event) => event.preventDefault());
  byId("picture").addEventListener("change", ({ target }) => {
    describe(target.files);
    target.value = ""; // so that the same file can be chosen again
  });
  document.addEventListener("paste", (event) => onPaste(event, describe));
  prepareDrop(describe);
}

/** Text that is pasted into a field stays text, also where a picture of it comes along. */
function onPaste(event, describe) {
  const { files, types } = event.clipboardData;
  const isText = event.target.matches?.("input, textarea") && types.includes("text/plain");
  if (!files.length || isText) return;
  event.preventDefault();
  describe(files);
}

/** Files that miss the target are not opened instead of the page. */
function prepareDrop(describe) {
  const panel = byId("caption").closest(".panel");
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  const isOver = (event) => panel.contains(event.target);
  document.addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = isOver(event) ? "copy" : "none";
    byId("drop").classList.toggle("over", isOver(event));
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) byId("drop").classList.remove("over");
  });
  document.addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    byId("drop").classList.remove("over");
    if (isOver(event)) describe(event.dataTransfer.files);
  });
}

/** One after the other; an error that is not about the file ends it for the rest too. */
async function submitPictures(files, onJob) {
  if (!byId("caption").reportValidity()) return;
  const errors = [];
  setText(byId("caption-error"), "");
  for (const [i, file] of files.entries()) {
    try {
      await submitPicture(file, onJob);
    } catch (error) {
      errors.push(`${file.name}: ${error.message}`);
      if (ABOUT_THE_FILE.includes(error.status)) continue;
      const rest = files.length - i - 1;
      if (rest) errors.push(`Not sent: ${rest} more.`);
      break;
    }
  }
  setText(byId("caption-error"), errors.join("\n"));
}

async function submitPicture(file, onJob) {
  const form = new FormData();
  form.set("task", "img2txt");
  form.set("count", byId("captions").value);
  form.set("file", file);
  const askedAt = performance.now();
  onJob(await post("v1/jobs", form), askedAt);
}

/** Calls that come while one is under way are ignored. */
function once(action) {
  let busy = false;
  return async () => {
    if (busy) return;
    busy = true;
    await action();
    busy = false;
  };
}
