"""Pictures behind a BentoML task: POST /draw/submit, GET /draw/status, GET /draw/get.

bentoml serve bentoml_server:Drawing
"""

import base64
import os
from typing import Any

import bentoml
import drawing

from crossmodal.kinds.txt2img import Txt2ImgParams

MAX_BATCH = 16


@bentoml.service(
    # Two processes lose tasks: "database is locked" when one has ended, and it is never recorded.
    workers=1,
    threads=int(os.environ.get("BENCH_THREADS", "2")),
    traffic={"timeout": 120},
    logging={"access": {"enabled": False}},
)
class Drawing:
    """Tasks are kept in SQLite, as BentoML does by itself; batches are its adaptive ones."""

    def __init__(self) -> None:
        self.pipeline = drawing.load()

    @bentoml.task(batchable=True, max_batch_size=MAX_BATCH)
    def draw(self, jobs: list[dict[str, Any]]) -> list[str]:
        """PNG files in base64: a list of bytes has no place in JSON."""
        files = drawing.draw(self.pipeline, [Txt2ImgParams(**job) for job in jobs])
        return [base64.b64encode(png).decode() for png in files]
