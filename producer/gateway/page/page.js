import { BatchList } from "./batches.js";
import { cluster } from "./cluster.js";
import { prepareComposer } from "./composer.js";
import { byId, setText } from "./dom.js";
import { follow } from "./events.js";
import { prepareFilters } from "./filters.js";
import { Gallery } from "./gallery.js";
import { prepareKey } from "./key.js";
import { prepareModels } from "./models.js";
import { prepareQueues } from "./queues.js";
import { prepareViews } from "./views.js";

const TICK_MS = 20_000;
const PLACES_MS = 5_000;
const gallery = new Gallery();
const batches = new BatchList();
let connection = new AbortController();

/** Follows the event stream of the page; reloads the gallery at each connection. */
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
        batches.resume();
      },
      onLost: () => say("Connection lost, trying again. What is shown may be old."),
    });
  } catch (error) {
    say(error.status === 401 ? "" : error.message);
  }
}

function disconnect() {
  connection.abort();
  gallery.pause();
  batches.pause();
}

function hear(type, data) {
  if (type === "queues") cluster.hear(data);
  if (type === "job") gallery.hear(data);
}

/** Disconnects a hidden tab: connections to a host are limited across tabs. */
function onVisibility() {
  if (document.hidden) disconnect();
  else connect();
}

function choose(query) {
  byId("jobs").classList.toggle("only-batches", query === null);
  if (query === null) return void batches.show("all");
  batches.show(Object.keys(query).length ? "none" : "few");
  gallery.choose(query);
}

function linkFlower() {
  const url = document.querySelector("meta[name=flower]").content;
  byId("flower").hidden = !url;
  if (url) byId("flower").href = url;
}

linkFlower();
prepareViews();
prepareComposer();
prepareFilters(choose);
prepareModels();
prepareQueues();
prepareKey(() => {
  gallery.forgetAll();
  connect();
});
document.addEventListener("visibilitychange", onVisibility);
setInterval(() => gallery.tick(), TICK_MS);
setInterval(() => gallery.readPlaces(), PLACES_MS);
connect();
