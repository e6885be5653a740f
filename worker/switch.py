"""Chooses which model a device should load next, and which to unload for it.

Pure functions: numbers in, names out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

STAYS = 3.0  # a busy model stays for at least this many load times


@dataclass(frozen=True)
class Resident:
    """A model of a device at one moment.

    `waiting` counts its queued jobs; the oldest has waited for `oldest_wait_s`. A loaded model has
    been loaded for `stayed_s`, and without a job for `idle_s`.
    """

    name: str
    needs: int
    is_wanted: bool = False
    is_loaded: bool = False
    is_pinned: bool = False
    is_elsewhere: bool = False
    """Whether another worker has it loaded."""
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
    """The model to load, and those to unload for it once they have finished their jobs."""

    load: str
    give_up: tuple[str, ...] = ()


def choose(residents: Sequence[Resident], room: int, after_s: float) -> Switch | None:
    """Return the next switch, if there should be one.

    The model whose job has waited longest is loaded if it fits, or in place of idle models. Busy
    models are unloaded for it only once that job has waited for `after_s` and they have stayed
    for `STAYS` times their load time, so that models do not thrash.
    """
    if any(one.is_wanted and not one.is_loaded for one in residents):
        return None  # one load at a time
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
    """Return the models to unload; None if that cannot make enough room."""
    loaded = [one for one in residents if one.is_wanted]
    lacking = wanting.needs - (room - sum(one.needs for one in loaded))
    may_go = [one for one in loaded if _may_go(one, is_late=is_late)]
    chosen: list[str] = []
    for one in sorted(may_go, key=lambda one: (not one.is_idle, -one.idle_s, -one.stayed_s)):
        if lacking <= 0:
            break
        chosen.append(one.name)
        lacking -= one.needs
    # A model that needs more than the device has may try with the device to itself.
    fits = lacking <= 0 or len(chosen) == len(loaded)
    return tuple(chosen) if fits else None


def _may_go(one: Resident, *, is_late: bool) -> bool:
    if one.is_pinned:
        return False
    return one.is_idle or (is_late and one.stayed_s >= STAYS * one.load_s)
