// A client of `openapi-fetch`, by the types that `openapi-typescript` has generated as `made`.
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import createClient from "openapi-fetch";
import type { components, paths } from "./made.js";

type Job = components["schemas"]["JobView"];
type Request = components["schemas"]["Txt2ImgRequest"] | components["schemas"]["Img2TxtRequest"];

const { CROSSMODAL_URL, CROSSMODAL_API_KEY, FULL_URL } = process.env;
const clientOf = (baseUrl: string, key: string) =>
  createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${key}` } });
const client = clientOf(CROSSMODAL_URL!, CROSSMODAL_API_KEY!);
const full = clientOf(FULL_URL!, CROSSMODAL_API_KEY!);
const stranger = clientOf(CROSSMODAL_URL!, "cm_nobody_0");
const sketcher = { task: "txt2img", prompt: "a fox", model: "sketcher" } as const;
const at = (job: Job) => ({ params: { path: { job_id: job.id } } });

async function until(job: Job, done: (job: Job) => boolean): Promise<Job> {
  while (!done(job)) {
    await sleep(200);
    const { data, error } = await client.GET("/v1/jobs/{job_id}", at(job));
    assert(data, error?.detail);
    job = data;
  }
  return job;
}

async function submitted(body: Request): Promise<Job> {
  const { data, error } = await client.POST("/v1/jobs", { body });
  assert(data, error?.detail);
  return data;
}

async function resultOf(body: Request) {
  const ended = ["succeeded", "failed"];
  const job = await until(await submitted(body), ({ state }) => ended.includes(state));
  const { data, error } = await client.GET("/v1/jobs/{job_id}/result", at(job));
  assert(data, error?.detail);
  return data;
}

// Draws, and describes what was drawn.
const drawn = await resultOf({ ...sketcher, model: "scenes", prompt: "a large red circle" });
const { key } = drawn.images[0]!;
const described = await resultOf({ task: "img2txt", image: { key } });
assert.match(described.captions[0]!.text, /circle/);

// Follows, and cancels.
const running = await until(await submitted({ ...sketcher, steps: 200 }), (job) => !!job.progress);
assert.equal(running.progress!.of, 200);
const { data: canceled } = await client.POST("/v1/jobs/{job_id}/cancel", at(running));
await until(canceled!, ({ state }) => state === "canceled");

// OpenAI's route.
const fox = { model: "sketcher", prompt: "a fox", steps: 1 };
const { data: pictures } = await client.POST("/v1/images/generations", { body: fox });
assert(pictures && typeof pictures.data !== "string"); // as it would be with `stream`
assert(pictures.data[0]!.b64_json);

// Is refused, each in its own way.
for (const [by, body, status, code] of [
  [client, { ...sketcher, stpes: 1 }, 422, "invalid_params"],
  [client, { ...sketcher, model: "sktecher" }, 422, "model_not_found"],
  [full, { ...sketcher, model: "away" }, 503, "queue_full"],
  [stranger, sketcher, 401, "unauthorized"],
] as const) {
  const { error, response } = await by.POST("/v1/jobs", { body });
  assert.deepEqual([response.status, error?.code], [status, code]);
}
