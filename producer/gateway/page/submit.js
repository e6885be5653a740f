import { post } from "./api.js";

const ABOUT_THE_FILE = [400, 413, 415, 422];
const seen = new EventTarget();
const unanswered = new Map();

/** Calls `listener` with each job accepted on this page, and the time of its request. */
export function onSubmitted(listener) {
  seen.addEventListener("job", ({ detail }) => listener(detail.job, detail.askedAt));
}

/** Submits a job; after an unanswered request, a retry gets the same job. Throws `ApiError`. */
export async function submit(body) {
  const key = keyFor(body);
  const answer = await asked(() => post("v1/jobs", body, { "Idempotency-Key": key }));
  unanswered.delete(JSON.stringify(body));
  return answer;
}

/** Runs a request that makes a job, and notifies the listeners. */
export async function asked(ask) {
  const askedAt = performance.now();
  const job = await ask();
  seen.dispatchEvent(new CustomEvent("job", { detail: { job, askedAt } }));
  return job;
}

/**
 * Submits a job for each file in sequence; stops at an error that is not about the file. Returns
 * the error messages.
 */
export async function submitFiles(files, body) {
  const errors = [];
  for (const [i, file] of files.entries()) {
    try {
      await asked(() => post("v1/jobs", formOf(file, body)));
    } catch (error) {
      errors.push(`${file.name}: ${error.message}`);
      if (ABOUT_THE_FILE.includes(error.status)) continue;
      const rest = files.length - i - 1;
      if (rest) errors.push(`Not sent: ${rest} more.`);
      break;
    }
  }
  return errors;
}

/** Makes a form, in which values other than strings are JSON. */
function formOf(file, body) {
  const form = new FormData();
  for (const [name, value] of Object.entries(body)) {
    form.set(name, typeof value === "string" ? value : JSON.stringify(value));
  }
  form.set("file", file);
  return form;
}

/** Returns the same key until there is an answer: a lost request may have made a job. */
function keyFor(body) {
  const request = JSON.stringify(body);
  if (!unanswered.has(request)) unanswered.set(request, randomKey());
  return unanswered.get(request);
}

/** Replaces crypto.randomUUID, which exists on https only. */
function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
