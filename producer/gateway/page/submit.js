import { post } from "./api.js";

const ABOUT_THE_FILE = [400, 413, 415, 422];
const seen = new EventTarget();
const unanswered = new Map();

/** `listener` gets each job that is accepted here, and when it was asked for. */
export function onSubmitted(listener) {
  seen.addEventListener("job", ({ detail }) => listener(detail.job, detail.askedAt));
}

/** Submits a job, or has an answer that came to a request before. Raises `ApiError`. */
export async function submit(body) {
  const key = keyFor(body);
  const answer = await asked(() => post("v1/jobs", body, { "Idempotency-Key": key }));
  unanswered.delete(JSON.stringify(body));
  return answer;
}

/** Has `ask` make a job, and tells of it. */
export async function asked(ask) {
  const askedAt = performance.now();
  const job = await ask();
  seen.dispatchEvent(new CustomEvent("job", { detail: { job, askedAt } }));
  return job;
}

/**
 * A job for each file, one after the other; an error that is not about the file ends it for the
 * rest too. What went wrong, a line for each.
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

/** In a form, values other than texts are JSON. */
function formOf(file, body) {
  const form = new FormData();
  for (const [name, value] of Object.entries(body)) {
    form.set(name, typeof value === "string" ? value : JSON.stringify(value));
  }
  form.set("file", file);
  return form;
}

/** The same key until there is an answer: a request that got lost may have made a job. */
function keyFor(body) {
  const request = JSON.stringify(body);
  if (!unanswered.has(request)) unanswered.set(request, randomKey());
  return unanswered.get(request);
}

/** crypto.randomUUID exists on https only. */
function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
