// Waits until a job of this prompt is in the gateway's hands.
import { setTimeout as sleep } from "node:timers/promises";

const { CROSSMODAL_URL, CROSSMODAL_API_KEY } = process.env;
const headers = { Authorization: `Bearer ${CROSSMODAL_API_KEY}` };

export async function submitted(prompt) {
  for (const begun = Date.now(); Date.now() - begun < 60_000; ) {
    const reply = await fetch(`${CROSSMODAL_URL}/v1/jobs`, { headers });
    const { data } = await reply.json();
    if (data.some((job) => job.params.prompt === prompt)) return;
    await sleep(100); // between two polls
  }
  throw new Error(`nobody has submitted ${prompt}`);
}
