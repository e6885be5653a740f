"""A short storm with every test run; the long one is `make chaos`."""

from pathlib import Path

import pytest

from tests.chaos.storm import Storm, run, world_of
from tests.receiver import listening


@pytest.mark.timeout(900)
def test_a_short_storm_breaks_no_promise(tmp_path: Path) -> None:
    with world_of(6.0, 4, tmp_path) as world, listening() as receiver:
        receiver.fails_every = 3
        storm = Storm(
            world, seed=7, minutes=1.5, jobs=200, poison=1, pause_s=(2.0, 6.0), receiver=receiver
        )
        text, breaches = run(storm)
        print(text)
        assert breaches == []
