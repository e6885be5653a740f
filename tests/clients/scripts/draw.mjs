// Draw with OpenAI's client for JavaScript: node draw.mjs PROMPT STEPS TIMEOUT RETRIES
import OpenAI from "openai";

const [prompt, ...numbers] = process.argv.slice(2);
const [steps, timeout, maxRetries] = numbers.map(Number);
const client = new OpenAI({ timeout: timeout * 1000, maxRetries });
try {
  await client.images.generate({ model: "sketcher", prompt, steps });
} catch (error) {
  console.log(error.constructor.name, error.code ?? "");
}
