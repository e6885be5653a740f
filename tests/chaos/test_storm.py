"""Short storms with every test run; the long one is `make chaos`."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.chaos.storm import Storm, run, world_of
from tests.receiver import listening


@pytest.mark.timeout(900)
@pytest.mark.parametrize("models", [(), ("a", "b", "c")], ids=["those that ship", "three"])
def test_a_short_storm_breaks_no_promise(tmp_path: Path, models: Sequence[str]) -> None:
    with (
        world_of(6.0, 4, tmp_path, models=models, with_sentinel=bool(models)) as world,
        listening() as receiver,
    ):
        receiver.fails_every = 3
        storm = Storm(
            world, seed=7, minutes=0.6, jobs=80, poison=1, pause_s=(2.0, 6.0), receiver=receiver
        )
        text, breaches = run(storm)
        print(text)
        for log in sorted(tmp_path.glob("*.log")):
            print(f"{log.name} ends:\n{log.read_text()[-4_000:]}")
        assert breaches == []
