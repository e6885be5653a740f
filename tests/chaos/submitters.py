"""Producers that submit jobs with an idempotency key, until each is accepted."""

import io
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event

from PIL import Image, ImageDraw

from crossmodal.errors import CrossmodalError
from producer import Client, JobHandle
from tests.chaos.audit import Accepted
from tests.chaos.world import World

PRODUCERS = 3
MOST_S = 30.0  # for a submit: an upload within 15 s, two calls to Redis within 5 s each
PROMPTS = [
    f"a {size} {color} circle on a white background"
    for size in ("small", "large")
    for color in ("red", "green", "blue")
]


@dataclass
class Submitters:
    """Producers of `jobs` jobs; each makes `poison` ones that crash the model host."""

    world: World
    seed: int
    accepted: Accepted
    over: Event
    jobs: int
    poison: int
    pause_s: float

    def produce(self, number: int) -> None:
        rng = random.Random(f"{self.seed}/{number}")
        mine = self.jobs // PRODUCERS
        with Client(self.world.settings()) as client:
            for i in range(mine):
                if self.over.is_set():
                    return
                poison = i * self.poison % mine < self.poison  # spread evenly
                self._submit_one(client, rng, f"{number}/{i}", poison=poison)
                self.over.wait(rng.uniform(0, 2 * self.pause_s))

    def _submit_one(self, client: Client, rng: random.Random, key: str, *, poison: bool) -> None:
        """Submit until accepted; the key makes one job of all tries."""
        prompt = rng.choice(PROMPTS) + (" poison" if poison else "")
        seed, count, caption = rng.randrange(50), rng.choice([1, 1, 1, 4]), rng.random() < 0.3
        model = self.world.a_model(rng)

        def submit() -> JobHandle:
            if caption and not poison:
                return client.img2txt(picture(seed), model=model, idempotency_key=key)
            return client.txt2img(prompt, seed=seed, count=count, model=model, idempotency_key=key)

        job = self.insist(submit)
        if job is None:
            return
        with self.accepted.lock:
            self.accepted.jobs.add(job.id)
            self.accepted.models[job.id] = model
            if poison:
                self.accepted.poison.add(job.id)
        if rng.random() < 0.05:
            again = self.insist(submit)
            self.accepted.counts["submitted again by key"] += 1
            self.accepted.wrong_ids += again is not None and again.id != job.id

    def insist(self, submit: Callable[[], JobHandle]) -> JobHandle | None:
        """Submit until accepted, refused for good, or the storm is over."""
        while not self.over.is_set():
            begun = time.monotonic()
            try:
                return submit()
            except CrossmodalError as e:
                if not e.retryable:
                    self.accepted.refusals.append(f"{e.code}: {e}")
                    return None
                self.accepted.counts[f"refused: {e.code}"] += 1
                self.accepted.late_refusals += time.monotonic() - begun > MOST_S
                self.over.wait(0.5)
        return None


def picture(number: int) -> bytes:
    """Return a picture to caption: a circle on white, as PNG."""
    image = Image.new("RGB", (128, 128), "white")
    color = ("red", "green", "blue")[number % 3]
    ImageDraw.Draw(image).ellipse((20, 20, 60 + number, 60 + number), fill=color)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
