// A client that `@hey-api/openapi-ts` has generated as `made`.
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import {
  blobsBlob, jobsCancel, jobsLook, jobsResult, jobsSubmit, openaiGenerate,
  type Img2TxtRequest, type JobView, type Txt2ImgRequest,
} from "./made/index.js";
import { createClient } from "./made/client/index.js";

const { CROSSMODAL_URL, CROSSMODAL_API_KEY, FULL_URL } = process.env;
const client = createClient({ baseUrl: CROSSMODAL_URL!, auth: CROSSMODAL_API_KEY! });
const full = createClient({ baseUrl: FULL_URL!, auth: CROSSMODAL_API_KEY! });
const stranger = createClient({ baseUrl: CROSSMODAL_URL!, auth: "cm_nobody_0" });
const sketcher = { task: "txt2img", prompt: "a fox", model: "sketcher" } as const;

async function until(job: JobView, done: (job: JobView) => boolean): Promise<JobView> {
  while (!done(job)) {
    await sleep(200);
    const path = { job_id: job.id };
    job = (await jobsLook({ client, path, throwOnError: true })).data;
  }
  return job;
}

async function submitted(body: Txt2ImgRequest | Img2TxtRequest): Promise<JobView> {
  return (await jobsSubmit({ client, body, throwOnError: true })).data;
}

async function resultOf(body: Txt2ImgRequest | Img2TxtRequest) {
  const ended = ["succeeded", "failed"];
  const job = await until(await submitted(body), ({ state }) => ended.includes(state));
  return (await jobsResult({ client, path: { job_id: job.id }, throwOnError: true })).data;
}

// Draws, and describes what was drawn.
const drawn = await resultOf({ task: "txt2img", prompt: "a large red circle", seed: 7 });
const key = drawn.images[0]!.key;
const { data: blob } = await blobsBlob({ client, path: { key }, parseAs: "blob", throwOnError: true });
assert.equal((blob as Blob).type, "image/png");
const described = await resultOf({ task: "img2txt", image: { key } });
assert.match(described.captions[0]!.text, /circle/);

// Follows, and cancels.
const running = await until(await submitted({ ...sketcher, steps: 200 }), (job) => !!job.progress);
assert.equal(running.progress!.of, 200);
const path = { job_id: running.id };
const { data: canceled } = await jobsCancel({ client, path, throwOnError: true });
await until(canceled, ({ state }) => state === "canceled");

// OpenAI's route.
const fox = { model: "sketcher", prompt: "a fox", steps: 1 };
const { data: pictures } = await openaiGenerate({ client, body: fox, throwOnError: true });
assert(pictures.data[0]!.b64_json);
const { error: wrong } = await openaiGenerate({ client, body: { ...fox, stpes: 1 } });
assert(wrong && "error" in wrong);
assert.equal(wrong.error.param, "stpes");

// Is refused, each in its own way.
for (const [by, body, status, code] of [
  [client, { ...sketcher, stpes: 1 }, 422, "invalid_params"],
  [client, { ...sketcher, model: "sktecher" }, 422, "model_not_found"],
  [full, { ...sketcher, model: "away" }, 503, "queue_full"],
  [stranger, sketcher, 401, "unauthorized"],
] as const) {
  const { error, response } = await jobsSubmit({ client: by, body });
  assert.deepEqual([response?.status, error?.code], [status, code]);
}
