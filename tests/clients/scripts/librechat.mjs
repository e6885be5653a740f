// Requests as LibreChat sends them: its tool `image_gen_oai`, and a chat with a picture.
// node librechat.mjs PICTURE
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import OpenAI from "openai";
import { submitted } from "./submitted.mjs";

const { OPENAI_API_KEY: apiKey, OPENAI_BASE_URL: baseURL, FULL_URL } = process.env;

// The tool: what it sends, and that it reads `b64_json` though it has not asked for that.
async function imageGenOai(config, { prompt, n = 1, output_format = "png", ...others }, signal) {
  const openai = new OpenAI({ apiKey, baseURL, ...config });
  const compressed = output_format === "webp" || output_format === "jpeg";
  const reply = await openai.images.generate({
    model: "gpt-image-1",
    prompt: prompt.replace(/\r\n|\r|\n/g, " ").replace(/"/g, "").trim(),
    n: Math.min(Math.max(1, n), 10),
    background: "auto",
    output_format,
    output_compression: compressed ? 100 : undefined,
    quality: "auto",
    size: "auto",
    ...others,
  }, { signal });
  const picture = reply.data[0].b64_json;
  assert(picture, "no image data returned");
  return Buffer.from(picture, "base64");
}

// Draws.
const png = await imageGenOai({}, { prompt: "a large\nred circle" });
assert.equal(png.toString("latin1", 1, 4), "PNG");
const webp = await imageGenOai({}, { prompt: "a red circle", output_format: "webp" });
assert.equal(webp.toString("latin1", 8, 12), "WEBP");
const size = "1024x1024"; // of a model with one size: a warning, and no error
assert(await imageGenOai({}, { prompt: "a red circle", size, background: "transparent" }));

// Lists models, to have some to choose from.
const listed = await fetch(`${baseURL}/models`, { headers: { Authorization: `Bearer ${apiKey}` } });
assert((await listed.json()).data.map((model) => model.id).includes("scenes"));

// Describes, as an endpoint of another name.
const url = `data:image/png;base64,${(await readFile(process.argv[2])).toString("base64")}`;
const openai = new OpenAI({ apiKey, baseURL });
const content = [
  { type: "text", text: "What is in this picture?" },
  { type: "image_url", image_url: { url, detail: "auto" } },
];
const chunks = await openai.chat.completions.create({
  model: "scenes", user: "65f0c0ffee", stream: true, stream_options: { include_usage: true },
  temperature: 1, top_p: 1, presence_penalty: 0, frequency_penalty: 0,
  messages: [{ role: "system", content: "You are brief." }, { role: "user", content }],
});
let said = "";
for await (const chunk of chunks) said += chunk.choices[0]?.delta.content ?? "";
assert.match(said, /circle/);

// Is refused: what the tool tells is the error's message.
const fox = { prompt: "a fox" };
const once = { maxRetries: 0 };
for (const [config, fields, kind, says] of [
  [once, { ...fox, model: "sketcher", stpes: 1 }, OpenAI.BadRequestError, /did you mean 'steps'/],
  [once, { ...fox, model: "sktecher" }, OpenAI.NotFoundError, /did you mean 'sketcher'/],
  [{ ...once, baseURL: `${FULL_URL}/v1` }, { ...fox, model: "away" }, OpenAI.RateLimitError,
    /submit again in/],
  [{ ...once, apiKey: "cm_nobody_0" }, fox, OpenAI.AuthenticationError, /API key/],
]) {
  await assert.rejects(imageGenOai(config, fields), (error) => {
    assert(error instanceof kind, error);
    assert.match(error.message, says);
    return true;
  });
}

// Leaves, as when its user stops it.
const stop = new AbortController();
const long = { model: "sketcher", prompt: "librechat left", steps: 200 };
const call = imageGenOai({}, long, AbortSignal.any([stop.signal]));
await Promise.race([call, submitted("librechat left")]);
stop.abort();
await assert.rejects(call, OpenAI.APIUserAbortError);
