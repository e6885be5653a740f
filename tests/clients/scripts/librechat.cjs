// What LibreChat's tool asks of a web UI, with the `axios` that it uses: the key is in the URL.
const assert = require("node:assert");
const axios = require("axios");

const url = new URL(process.env.CROSSMODAL_URL);
url.username = "me";
url.password = process.env.CROSSMODAL_API_KEY;
const payload = {
  prompt: "a large red circle on a white background",
  negative_prompt: "low quality",
  cfg_scale: 4.5,
  steps: 22,
  width: 1024,
  height: 1024,
};

(async () => {
  const path = `${url.href.replace(/\/$/, "")}/sdapi/v1/txt2img`;
  const { data } = await axios.post(path, payload);
  const info = JSON.parse(data.info);
  assert.ok(Buffer.from(data.images[0], "base64").subarray(1, 4).equals(Buffer.from("PNG")));
  assert.ok(info.infotexts[0].startsWith(payload.prompt));
  assert.strictEqual(info.width, 128);
  assert.deepStrictEqual(
    info.warnings,
    ["negative_prompt", "steps", "cfg_scale", "width", "height"].map(
      (name) => `${name}: the model has no such param`,
    ),
  );
  const wrong = { ...payload, enable_hr: true };
  await assert.rejects(axios.post(path, wrong), (error) => error.response.status === 422);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
