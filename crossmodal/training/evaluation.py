"""Evaluate a bundle, by judges that are independent of its models.

On `scenes`, prompts and captions are parsed into facts. A picture scores by the facts of its
prompt that the judge finds in it, a caption by the facts of its picture that it names; an
omitted fact is a mistake. On other data sets, captions are scored against human references.
"""

import math
import time
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from crossmodal.datasets.base import Dataset, examples
from crossmodal.datasets.scenes import Scenes
from crossmodal.datasets.scenes.facts import parse
from crossmodal.networks.bundle import Bundle
from crossmodal.training.inference import CHUNK, Models, single_threaded
from crossmodal.training.judge import HARMS, judge
from crossmodal.training.tallies import (
    SEED,
    ExampleTally,
    Figures,
    JudgedCaptions,
    JudgedPictures,
    SceneTally,
    Tally,
    asked_of,
    mean,
)

JUDGED = 200  # true pictures to measure the accuracy of the judge itself on

Report = Callable[[int, int], None]  # examples judged so far and in total, over all splits


def evaluate(
    bundle: Bundle,
    data: Dataset,
    count: int,
    splits: Sequence[str],
    limit_s: float = math.inf,
    report: Report = lambda *_: None,
) -> dict[str, Any]:
    """Return metrics by task and split; all but `sharpness` and `cider` are fractions in [0, 1].

    At most `count` examples of each split are judged, and no chunk is begun that is expected to
    end more than `limit_s` seconds from now. The result's `count` is the number judged.
    """
    ends_at = time.monotonic() + limit_s
    models = Models.of(bundle)
    sizes = [count if size is None else min(count, size) for size in map(data.size, splits)]
    tallies = {split: _tally(models, data, split, max(sizes)) for split in splits}
    found: dict[str, Any] = {"dataset": data.name, "txt2img": {}, "img2txt": {}, "round_trip": {}}
    with single_threaded():
        found["count"] = _judge(list(tallies.values()), sum(sizes), ends_at, report)
    for split, tally in tallies.items():
        for task, figures in tally.figures().items():
            found[task][split] = figures
    if isinstance(data, Scenes) and splits:
        found["judge"] = judge_of_judges(data, min(found["count"], JUDGED))
    return found


def _tally(models: Models, data: Dataset, split: str, count: int) -> Tally:
    if isinstance(data, Scenes):
        stream = asked_of(data, split, count)
        return SceneTally(stream, JudgedPictures(models, count), JudgedCaptions(models))
    return ExampleTally(models, islice(examples(data, split, SEED), count))


def _judge(tallies: Sequence[Tally], total: int, ends_at: float, report: Report) -> int:
    """Judge chunks of all splits in turn, until no example or time is left.

    Chunks start small, to measure how long they take. Returns the count of the split with the
    most examples."""
    judged, size = [0] * len(tallies), 1
    report(0, total)
    while True:
        begun, before = time.monotonic(), sum(judged)
        for i, tally in enumerate(tallies):
            if added := tally.add(size):
                judged[i] += added
                report(sum(judged), total)
        now, following = time.monotonic(), min(2 * size, CHUNK)
        if sum(judged) == before or now + (now - begun) * following / size > ends_at:
            return max(judged, default=0)
        size = following


def judge_of_judges(data: Scenes, count: int = JUDGED) -> Figures:
    """Return the fraction of facts that the judge finds in true pictures: clean, blurred (a
    deviation of 1 pixel), noisy (12 levels), and as JPEG of quality 50."""
    asked = list(asked_of(data, "seen", count))
    return {
        name: mean([f for a in asked for f in judge(harm(a.image), parse(a.complete)).facts])
        for name, harm in HARMS.items()
    }
