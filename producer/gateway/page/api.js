import { duration } from "./words.js";

const KEY = "crossmodal-key";

/** A failed request, with a message for the user. `status` is 0 without a response. */
export class ApiError extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

/** Dispatches "unauthorized" when the gateway refuses the key, or needs one. */
export const access = new EventTarget();

export const key = {
  get: () => sessionStorage.getItem(KEY),
  use: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

/** Returns a gateway URL's path and query: behind a proxy, its host may differ from the page's. */
export function local(url) {
  const { pathname, search } = new URL(url, document.baseURI);
  return pathname + search;
}

/** Returns the response if its status is 2xx. Throws `ApiError`. */
export async function request(url, options = {}) {
  const headers = new Headers(options.headers);
  if (key.get()) headers.set("Authorization", `Bearer ${key.get()}`);
  const response = await answer(local(url), { ...options, headers });
  if (response.ok) return response;
  if (response.status === 401) access.dispatchEvent(new Event("unauthorized"));
  throw new ApiError(await reason(response), response.status);
}

async function answer(url, options) {
  try {
    return await fetch(url, options);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new ApiError("The gateway does not answer. Check that it runs, then try again.");
  }
}

async function reason(response) {
  const problem = await response.json().catch(() => ({}));
  const said = problem.detail ?? problem.title;
  const text = said ? String(said) : `The gateway answered ${response.status} ${response.statusText}`;
  const hint = retryHint(response);
  return hint ? `${text.replace(/[.!]?$/, ".")} ${hint}` : text;
}

/** Retry-After is in seconds, or a date. */
function retryHint(response) {
  const header = response.headers.get("Retry-After");
  if (header === null || ![429, 503].includes(response.status)) return "";
  const seconds = /^\d+$/.test(header) ? Number(header) : (Date.parse(header) - Date.now()) / 1_000;
  return seconds > 0 ? `Try again in ${duration(seconds)}.` : "Try again now.";
}

export async function getJson(url, options) {
  return (await request(url, options)).json();
}

export async function post(url, body, headers = {}) {
  const isForm = body === undefined || body instanceof FormData;
  return getJson(url, {
    method: "POST",
    headers: isForm ? headers : { "Content-Type": "application/json", ...headers },
    body: isForm ? body : JSON.stringify(body),
  });
}

export async function getBlob(url) {
  return (await request(url)).blob();
}
