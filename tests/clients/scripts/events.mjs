// Follows a job with `eventsource`, which never closes it by itself: node events.mjs URL
// A line for each event, then one that says how it ended.
import { EventSource } from "eventsource";

const headers = { Authorization: `Bearer ${process.env.CROSSMODAL_API_KEY}` };
const source = new EventSource(process.argv[2], {
  fetch: (input, init) => fetch(input, { ...init, headers: { ...init.headers, ...headers } }),
});
const say = (kind, data) => console.log(JSON.stringify({ kind, ...data }));

source.addEventListener("open", () => say("open"));
for (const kind of ["state", "progress", "end"]) {
  source.addEventListener(kind, (event) => say(kind, JSON.parse(event.data)));
}
source.addEventListener("error", ({ code }) => {
  if (source.readyState === EventSource.CLOSED) say("closed", { code });
});
