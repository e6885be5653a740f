// Caption a picture over HTTP from Node 18 or newer, which needs no package for it.
//   node caption.mjs photo.jpg
import { readFile } from "node:fs/promises";

const url = process.env.CROSSMODAL_URL ?? "http://127.0.0.1:8000";
const key = process.env.CROSSMODAL_KEY;
const auth = key ? { Authorization: `Bearer ${key}` } : {};

async function call(path, options = {}) {
  const answer = await fetch(new URL(path, url), {
    ...options,
    headers: { ...auth, ...options.headers },
  });
  const body = await answer.json();
  if (!answer.ok) throw new Error(`${body.code}: ${body.detail}`);
  return body;
}

const form = new FormData();
form.set("task", "img2txt");
form.set("count", "3");
form.set("file", new Blob([await readFile(process.argv[2])]));

let job = await call("/v1/jobs", { method: "POST", body: form });

// Each event is a few lines and an empty one; the last one, `end`, has the job.
const stream = await fetch(job.events_url, { headers: auth });
let text = "";
for await (const piece of stream.body.pipeThrough(new TextDecoderStream())) {
  text += piece;
  const end = text.match(/event: end\ndata: (.*)\n/);
  if (end) job = JSON.parse(end[1]);
}

if (job.state !== "succeeded") {
  throw new Error(job.failure ? `${job.failure.code}: ${job.failure.message}` : job.state);
}
for (const caption of job.result.captions) console.log(caption.text);
