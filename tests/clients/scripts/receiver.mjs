// A receiver of one delivery of a webhook, which it verifies: node receiver.mjs SECRET
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { Webhook, WebhookVerificationError } from "standardwebhooks";

const webhook = new Webhook(process.argv[2]);

const server = createServer(async (request, response) => {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  const body = Buffer.concat(pieces).toString();
  const told = webhook.verify(body, request.headers);
  for (const [text, headers] of [
    [body.replace("succeeded", "failed"), request.headers],
    [body, { ...request.headers, "webhook-id": "another" }],
  ]) assert.throws(() => webhook.verify(text, headers), WebhookVerificationError);
  response.writeHead(204, { connection: "close" }).end();
  console.log(JSON.stringify(told));
  server.close();
});
server.listen(0, "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${server.address().port}/hooks`);
});
