"""Which model a device should load next, and which it should give up for it.

Numbers go in, names come out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

STAYS = 3.0  # times as long as it took to load, a model stays at least while it has jobs


@dataclass(frozen=True)
class Resident:
    """A model of a device at one moment. `oldest_wait_s` is of its jobs that `waiting` counts.

    Of one that `is_loaded`, `stayed_s` says since when, `idle_s` for how long it has had no job.
    """

    name: str
    needs: int
    is_wanted: bool = False
    is_loaded: bool = False
    is_pinned: bool = False
    is_elsewhere: bool = False
    """Whether another worker has it."""
    is_coming: bool = False
    """Whether another worker is about to load it."""
    waiting: int = 0
    oldest_wait_s: float = 0.0
    in_hand: int = 0
    stayed_s: float = 0.0
    idle_s: float = 0.0
    load_s: float = 0.0

    @property
    def is_idle(self) -> bool:
        return not self.waiting and not self.in_hand


@dataclass(frozen=True)
class Switch:
    """The model to load, and those to give up for it; these finish what they have in hand."""

    load: str
    give_up: tuple[str, ...] = ()


def choose(residents: Sequence[Resident], room: int, after_s: float) -> Switch | None:
    """The next switch, if there should be one.

    The model whose job waits longest is loaded where it fits, or in place of others that have
    nothing to do. Those that have are given up only once it has waited for `after_s`, and they
    have stayed for some times as long as they took to load: so models are not loaded in turns.
    """
    if any(one.is_wanted and not one.is_loaded for one in residents):
        return None  # one after another
    wanting = [one for one in residents if not one.is_wanted and one.waiting]
    for one in sorted(wanting, key=lambda one: -one.oldest_wait_s):
        is_late = one.oldest_wait_s >= after_s
        if one.is_coming or (one.is_elsewhere and not is_late):
            continue
        given_up = _given_up(one, residents, room, is_late=is_late)
        if given_up is not None:
            return Switch(one.name, given_up)
    return None


def _given_up(
    wanting: Resident, residents: Sequence[Resident], room: int, *, is_late: bool
) -> tuple[str, ...] | None:
    """The models that must go; None where that cannot be."""
    loaded = [one for one in residents if one.is_wanted]
    lacking = wanting.needs - (room - sum(one.needs for one in loaded))
    may_go = [one for one in loaded if _may_go(one, is_late=is_late)]
    chosen: list[str] = []
    for one in sorted(may_go, key=lambda one: (not one.is_idle, -one.idle_s, -one.stayed_s)):
        if lacking <= 0:
            break
        chosen.append(one.name)
        lacking -= one.needs
    # What needs more than there is may try with the device for itself.
    fits = lacking <= 0 or len(chosen) == len(loaded)
    return tuple(chosen) if fits else None


def _may_go(one: Resident, *, is_late: bool) -> bool:
    if one.is_pinned:
        return False
    return one.is_idle or (is_late and one.stayed_s >= STAYS * one.load_s)
