import { request } from "./api.js";

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;
const STEADY_MS = 5_000; // a stream this long resets the pause between retries
const SILENCE_MS = 60_000; // the gateway sends a comment every 15 s
const FINAL = [401, 403, 404, 410]; // not retried

/**
 * Follows a stream of server-sent events, with reconnection, until `onEvent` returns false or
 * `signal` aborts. Throws `ApiError` for errors that a retry cannot fix. EventSource cannot be
 * used: it sends no Authorization header.
 */
export async function follow(url, { signal, onEvent, onOpen = () => {}, onLost = () => {} }) {
  const stream = { url, signal, onOpen, onEvent, lastId: "" };
  for (let failures = 0; !signal.aborted; ) {
    const began = performance.now();
    try {
      if (await readOnce(stream)) return;
    } catch (error) {
      if (signal.aborted) return;
      if (FINAL.includes(error.status)) throw error;
    }
    if (performance.now() - began > STEADY_MS) failures = 0;
    onLost();
    await pause(pauseMs(failures++), signal);
  }
}

/** Reads one connection; returns true if `onEvent` has returned false. */
async function readOnce(stream) {
  const silence = alarm(SILENCE_MS);
  const signal = AbortSignal.any([stream.signal, silence.signal]);
  const headers = { Accept: "text/event-stream" };
  if (stream.lastId) headers["Last-Event-ID"] = stream.lastId;
  try {
    const response = await request(stream.url, { headers, signal, cache: "no-store" });
    stream.onOpen();
    for await (const event of parse(response.body, silence.restart)) {
      if (event.id !== undefined) stream.lastId = event.id;
      if (event.data && deliver(stream, event) === false) return true;
    }
    return false;
  } finally {
    silence.goOff(); // aborts the request unless it has ended
  }
}

/** Passes an event on; an exception in its handler does not end the stream. */
function deliver(stream, event) {
  try {
    return stream.onEvent(event.type, JSON.parse(event.data));
  } catch (error) {
    reportError(error);
    return true;
  }
}

function alarm(ms) {
  const controller = new AbortController();
  const goOff = () => {
    clearTimeout(timer);
    controller.abort();
  };
  let timer = setTimeout(goOff, ms);
  const restart = () => {
    clearTimeout(timer);
    timer = setTimeout(goOff, ms);
  };
  return { signal: controller.signal, restart, goOff };
}

async function* parse(body, heard) {
  let event = {};
  for await (const line of lines(body, heard)) {
    if (line === "") {
      yield event;
      event = {};
    } else {
      addField(event, line);
    }
  }
}

function addField(event, line) {
  const [, name, value] = /^([^:]*):? ?(.*)$/s.exec(line);
  if (name === "event") event.type = value;
  if (name === "id") event.id = value;
  if (name === "data") event.data = event.data === undefined ? value : `${event.data}\n${value}`;
}

async function* lines(body, heard) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    heard();
    const parts = (rest + value).split(/\r\n|\n|\r(?!$)/); // a final \r may be half of \r\n
    rest = parts.pop();
    yield* parts;
  }
}

function pauseMs(failures) {
  return Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** failures) * (0.8 + 0.2 * Math.random());
}

/** Waits; ends early when the network is back. */
function pause(ms, signal) {
  return new Promise((resolve) => {
    const over = new AbortController();
    const end = () => {
      over.abort();
      clearTimeout(timer);
      resolve();
    };
    const timer = setTimeout(end, ms);
    window.addEventListener("online", end, { signal: over.signal });
    signal.addEventListener("abort", end, { signal: over.signal });
  });
}
