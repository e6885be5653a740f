"""How good a bundle is, by judges that are not the model.

On `scenes`, prompts and captions are parsed into facts. A picture is right as far as the
judge finds its prompt's facts in it, a caption as far as it names those of its picture; a
fact that is left out is a mistake. On other data sets, captions are scored against people's.
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

JUDGED = 200  # true pictures that the judge itself is judged by

Report = Callable[[int, int], None]  # how many examples of all splits are judged, and of how many


def evaluate(
    bundle: Bundle,
    data: Dataset,
    count: int,
    splits: Sequence[str],
    limit_s: float = math.inf,
    report: Report = lambda *_: None,
) -> dict[str, Any]:
    """The figures of each split, by task; fractions from 0 to 1 but for `sharpness` and `cider`.

    At most `count` examples of each split are judged, and none is begun that would end later
    than `limit_s` seconds from now; `count` of the result says how many it were.
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
    """Add to all tallies in turn, until nothing is left or time is up; how many were judged of
    the split of which there are most.

    It begins with few, to find out how long they take."""
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
    """Fraction of facts that the judge finds in true pictures: clean, blurred (a deviation of
    1 pixel), noisy (12 levels), and as JPEG of quality 50."""
    asked = list(asked_of(data, "seen", count))
    return {
        name: mean([f for a in asked for f in judge(harm(a.image), parse(a.complete)).facts])
        for name, harm in HARMS.items()
    }
