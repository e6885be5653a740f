"""Faults of what processes share on a machine: its clock, and the disk of temporary files."""

import random
import time

from tests.chaos.faults.hit import Hit
from tests.chaos.world import World

STEPS_S = (-3_600, -60, -5, 5, 60, 3_600)


def step_clock(world: World, rng: random.Random) -> Hit:
    """Step the clocks of Redis and of all its clients."""
    return _step(world, rng.choice(STEPS_S))


def step_clock_of_worker(world: World, rng: random.Random) -> Hit:
    """Step one worker's clock, as on a machine whose clock is set by hand, and step it back."""
    name = rng.choice(world.workers).name
    return _step(world, rng.choice(STEPS_S), name, for_s=rng.uniform(5, 15))


def fill_disk(world: World, rng: random.Random) -> Hit:
    """Fill the disk of temporary files, sockets and heartbeats."""
    if not world.disk.may_fill:
        return Hit(False)
    world.disk.fill()
    time.sleep(rng.uniform(2, 8))  # the fault is a length of time
    world.disk.free()
    return Hit()


def _step(world: World, seconds: int, *name: str, for_s: float = 0.0) -> Hit:
    if not world.clocks.may_step:
        return Hit(False)
    world.clocks.step(seconds, *name)
    if for_s:
        time.sleep(for_s)  # the fault is a length of time
        world.clocks.step(-seconds, *name)
    return Hit()
