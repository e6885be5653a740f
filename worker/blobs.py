"""What a task process reads from the object store and puts there."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from crossmodal.jobs.ledger import Attempt
from crossmodal.jobs.names import result_key
from crossmodal.jobs.params import MAX_SEED, BlobRef, ItemParams, Txt2ImgParams
from crossmodal.jobs.record import ImageRef, JobResult
from crossmodal.settings import Settings
from crossmodal.storage import Storage, is_folder, open_storage
from crossmodal.vision.decode import decode
from crossmodal.vision.encode import encode_png, parameters_text
from worker.host.protocol import Answer


class Blobs:
    """Pictures in, pictures and results out; one a process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def store(self) -> Storage:
        # Opened on first use: a store that is away fails jobs, not the worker's start.
        return open_storage(self._settings)

    @property
    def in_folder(self) -> bool:
        """Whether the object store is a folder of this machine."""
        return is_folder(self._settings.storage_url)

    def picture(self, image: BlobRef) -> NDArray[np.uint8]:
        """The pixels of a stored picture, RGB (H, W, 3), within the limits."""
        return self.pixels(self.store.get(image, self._settings.max_image_bytes))

    def pixels(self, data: bytes) -> NDArray[np.uint8]:
        """The pixels of a picture's file, RGB (H, W, 3), within the limits."""
        return decode(data, self._settings.max_image_pixels)

    def put_images(
        self, attempt: Attempt, params: ItemParams, answer: Answer, folder: str = ""
    ) -> tuple[ImageRef, ...]:
        """Store what was drawn, if anything was, as `<folder><number>.png`."""
        if answer.images is None or not isinstance(params, Txt2ImgParams):
            return ()
        refs = []
        for i, pixels in enumerate(answer.images):
            height, width = pixels.shape[:2]
            text = parameters_text(
                params.prompt, ((params.seed or 0) + i) % (MAX_SEED + 1), params.temperature,
                (width, height), answer.model, answer.bundle_version,
            )  # fmt: skip
            key = result_key(attempt.job, f"{folder}{i}.png", attempt.number)
            blob = self.store.put(key, encode_png(pixels, text), "image/png")
            refs.append(ImageRef(**blob.model_dump(), width=width, height=height))
        return tuple(refs)

    def put_result(self, result: JobResult) -> None:
        """Store the job's `result.json`, where anybody finds it who knows the job's id."""
        text = result.model_dump_json().encode()
        key = result_key(result.job, "result.json")
        # The one blob that all attempts share: an earlier one's may come last, over a slow network.
        self.store.put_over(
            key, text, "application/json", lambda there: _attempt_of(there) <= result.attempt
        )


def _attempt_of(stored: bytes) -> int:
    try:
        return JobResult.model_validate_json(stored).attempt
    except ValueError:  # damaged, or somebody else's
        return 0
