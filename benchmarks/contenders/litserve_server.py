"""Pictures behind LitServe: POST /predict answers with a PNG file.

python litserve_server.py PORT WORKERS
"""

import sys
from typing import Any

import drawing
import litserve
from fastapi import Response

from crossmodal.kinds.txt2img import Txt2ImgParams

MAX_BATCH = 16


class Drawing(litserve.LitAPI):
    """Takes what waits as one batch, at once."""

    def setup(self, device: str) -> None:
        self.pipeline = drawing.load()

    def decode_request(self, request: dict[str, Any]) -> Txt2ImgParams:
        return Txt2ImgParams(**request)

    def predict(self, jobs: list[Txt2ImgParams]) -> list[bytes]:
        return drawing.draw(self.pipeline, jobs)

    def encode_response(self, png: bytes) -> Response:
        return Response(png, media_type="image/png")


if __name__ == "__main__":
    server = litserve.LitServer(
        Drawing(max_batch_size=MAX_BATCH), accelerator="cpu", workers_per_device=int(sys.argv[2])
    )
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False
    )
