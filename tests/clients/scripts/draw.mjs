// Draw with OpenAI's client for JavaScript: node draw.mjs PROMPT STEPS TIMEOUT RETRIES
import OpenAI from "openai";

const [prompt, ...numbers] = process.argv.slice(2);
const [steps, timeout, maxRetries] = numbers.map(Number);
const client = new OpenAI();
const options = { timeout: timeout * 1000, maxRetries }; // of a call: it tells the server so
try {
  await client.images.generate({ model: "sketcher", prompt, steps }, options);
} catch (error) {
  console.log(error.constructor.name, error.code ?? "");
}
