import { byId, setText } from "./dom.js";
import { follow } from "./events.js";
import { Gallery } from "./jobs.js";
import { prepareKey } from "./key.js";
import { showQueues } from "./queues.js";
import { prepareForms } from "./submit.js";

const TICK_MS = 20_000;
const PLACES_MS = 5_000;
const gallery = new Gallery();
let connection = new AbortController();

/** Listens to all that happens, and reads the gallery again whenever it has not listened. */
async function connect() {
  disconnect();
  connection = new AbortController();
  const say = (text) => setText(byId("connection"), text);
  try {
    await follow("v1/events", {
      signal: connection.signal,
      onEvent: hear,
      onOpen: () => {
        say("");
        gallery.reload();
        gallery.resume();
      },
      onLost: () => say("Connection lost, trying again."),
    });
  } catch (error) {
    say(error.status === 401 ? "" : error.message);
  }
}

function disconnect() {
  connection.abort();
  gallery.pause();
}

function hear(type, data) {
  if (type === "queues") showQueues(data);
  if (type === "job") gallery.hear(data);
}

/** A tab that nobody looks at gives its connections to those that are looked at. */
function onVisibility() {
  if (document.hidden) disconnect();
  else connect();
}

function linkFlower() {
  const url = document.querySelector("meta[name=flower]").content;
  byId("flower").hidden = !url;
  if (url) byId("flower").href = url;
}

linkFlower();
prepareForms((job, askedAt) => gallery.submitted(job, askedAt));
prepareKey(() => {
  gallery.clear();
  connect();
});
document.addEventListener("visibilitychange", onVisibility);
setInterval(() => gallery.tick(), TICK_MS);
setInterval(() => gallery.readPlaces(), PLACES_MS);
connect();
