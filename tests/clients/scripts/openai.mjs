// The official `openai` client for JavaScript: node openai.mjs PICTURE
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import OpenAI, { toFile } from "openai";
import { submitted } from "./submitted.mjs";

const { FULL_URL, OPENAI_API_KEY } = process.env;
const URL_OF_LINES = "/v1/images/generations";
const client = new OpenAI();
const isPng = (base64) => Buffer.from(base64, "base64").subarray(1, 4).toString() === "PNG";

// Draws.
const drawn = await client.images.generate({ model: "gpt-image-1", prompt: "a large red circle" });
assert(isPng(drawn.data[0].b64_json));
const given = { model: "sketcher", prompt: "a fox", size: "64x32", n: 2, steps: 1, seed: 7 };
const two = await client.images.generate({ ...given, response_format: "url" });
for (const { url } of two.data) {
  const reply = await fetch(url, { headers: { Authorization: `Bearer ${OPENAI_API_KEY}` } });
  assert.equal(reply.headers.get("content-type"), "image/png");
}

// Describes.
const data = (await readFile(process.argv[2])).toString("base64");
const picture = { type: "image_url", image_url: { url: `data:image/png;base64,${data}` } };
const messages = [{ role: "user", content: [{ type: "text", text: "What is it?" }, picture] }];
const found = await client.chat.completions.create({ model: "scenes", messages });
const caption = found.choices[0].message.content;
assert.match(caption, /circle/);
let said = "";
for await (const chunk of await client.chat.completions.create({
  model: "scenes", messages, stream: true,
})) said += chunk.choices[0]?.delta.content ?? "";
assert.equal(said, caption);

// Follows.
const kinds = [];
for await (const event of await client.images.generate({
  model: "sketcher", prompt: "a fox", stream: true, partial_images: 2, steps: 14,
})) {
  kinds.push(event.type);
  assert(event.b64_json);
}
const partial = "image_generation.partial_image";
assert.deepEqual(kinds, [partial, partial, "image_generation.completed"]);

// Leaves, in the middle of a stream and of a call.
const long = { model: "sketcher", steps: 200 };
const events = await client.images.generate({
  ...long, prompt: "js stream left", stream: true, partial_images: 1,
});
for await (const event of events) {
  assert.equal(event.type, partial);
  break;
}
const leaving = new AbortController();
const call = client.images.generate({ ...long, prompt: "js left" }, { signal: leaving.signal });
await Promise.race([call, submitted("js left")]);
leaving.abort();
await assert.rejects(call, OpenAI.APIUserAbortError);

// Is refused.
const stranger = client.withOptions({ apiKey: "cm_nobody_0", maxRetries: 0 });
const full = client.withOptions({ baseURL: `${FULL_URL}/v1`, maxRetries: 0 });
const fox = { model: "sketcher", prompt: "a fox" };
for (const [kind, code, param, ask] of [
  [OpenAI.BadRequestError, "invalid_params", "stpes",
    () => client.images.generate({ ...fox, stpes: 1 })],
  [OpenAI.NotFoundError, "model_not_found", "model",
    () => client.images.generate({ ...fox, model: "sktecher" })],
  [OpenAI.RateLimitError, "queue_full", null, () => full.images.generate({ ...fox, model: "away" })],
  [OpenAI.AuthenticationError, "unauthorized", null, () => stranger.images.generate(fox)],
]) {
  await assert.rejects(ask(), (error) => {
    assert(error instanceof kind, error);
    assert.deepEqual([error.code, error.param], [code, param]);
    return true;
  });
}

// Files and batches.
const line = JSON.stringify({
  custom_id: "a", method: "POST", url: URL_OF_LINES, body: { ...fox, steps: 1 },
});
const sent = await client.files.create({
  file: await toFile(Buffer.from(line), "a.jsonl"), purpose: "batch",
});
let batch = await client.batches.create({
  input_file_id: sent.id, endpoint: URL_OF_LINES, completion_window: "24h",
});
while (batch.status === "in_progress") {
  await sleep(200);
  batch = await client.batches.retrieve(batch.id);
}
assert.equal(batch.status, "completed");
const output = JSON.parse(await (await client.files.content(batch.output_file_id)).text());
assert(isPng(output.response.body.data[0].b64_json));
const ids = [];
for await (const file of client.files.list()) ids.push(file.id);
assert(ids.includes(sent.id));
assert((await client.files.delete(sent.id)).deleted);
