// Caption a picture over HTTP from Node 18 or newer, which needs no package for it.
//   node caption.mjs photo.jpg
import { readFile } from "node:fs/promises";

const url = process.env.CROSSMODAL_URL ?? "http://127.0.0.1:8000";
const key = process.env.CROSSMODAL_KEY;
const auth = key ? { Authorization: `Bearer ${key}` } : {};

async function call(path, options = {}) {
  const answer = await fetch(new URL(path, url), { ...options, headers: auth });
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({})); // what is between may answer otherwise
  throw new Error(problem.detail ? `${problem.code}: ${problem.detail}` : answer.statusText);
}

async function captions(path) {
  const form = new FormData();
  form.set("task", "img2txt");
  form.set("count", "3");
  form.set("file", new Blob([await readFile(path)]));

  let job = await (await call("/v1/jobs", { method: "POST", body: form })).json();

  // Each event is a few lines and an empty one; the last one, `end`, has the job.
  const stream = await call(job.events_url);
  let text = "";
  for await (const piece of stream.body.pipeThrough(new TextDecoderStream())) {
    text += piece;
    const end = text.match(/event: end\ndata: (.*)\n/);
    if (end) job = JSON.parse(end[1]);
  }

  if (job.state !== "succeeded") {
    throw new Error(job.failure ? `${job.failure.code}: ${job.failure.message}` : job.state);
  }
  return job.result.captions;
}

try {
  if (!process.argv[2]) throw new Error("give a picture: node caption.mjs photo.jpg");
  for (const caption of await captions(process.argv[2])) console.log(caption.text);
} catch (error) {
  // Where no server answers, the cause says why.
  const cause = error.cause ? ` (${url}: ${error.cause.code ?? error.cause.message})` : "";
  console.error(`${error.message}${cause}`);
  process.exitCode = 1;
}
