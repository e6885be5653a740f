"""A receiver of one delivery of a webhook, which it verifies: receiver.py SECRET"""

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from standardwebhooks import Webhook, WebhookVerificationError

webhook = Webhook(sys.argv[1])


def verifies(body: bytes, headers: dict[str, str]) -> bool:
    try:
        webhook.verify(body, headers)
    except WebhookVerificationError:
        return False
    return True


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        told = webhook.verify(body, headers)
        assert not verifies(body.replace(b"succeeded", b"failed"), headers)
        assert not verifies(body, {**headers, "webhook-id": "another"})
        self.send_response(204)
        self.end_headers()
        print(json.dumps(told))

    def log_message(self, *_: object) -> None:
        """Say nothing."""


server = HTTPServer(("127.0.0.1", 0), Handler)
print(f"http://127.0.0.1:{server.server_port}/hooks", flush=True)
server.handle_request()
