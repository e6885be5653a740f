"""Faults of the object store: away, slow, failing, full."""

import random
import time

from tests.chaos.faults.hit import Hit
from tests.chaos.proxy import FULL, Behaviour
from tests.chaos.world import World

FULL_S = (5.0, 20.0)  # three times the delays of a job's first retries


def refuse_store(world: World, rng: random.Random) -> Hit:
    return _store(world, Behaviour(refuses=True), rng.uniform(2, 8))


def slow_store(world: World, rng: random.Random) -> Hit:
    return _store(world, Behaviour(delay_s=0.5), rng.uniform(2, 8))


def fail_every_third_put(world: World, rng: random.Random) -> Hit:
    return _store(world, Behaviour(fails_every_put=3), rng.uniform(2, 8))


def fill_store(world: World, rng: random.Random) -> Hit:
    """Fill the store: reads succeed, writes fail."""
    return _store(world, Behaviour(fails_every_put=1, failure=FULL), rng.uniform(*FULL_S))


def _store(world: World, behaviour: Behaviour, for_s: float) -> Hit:
    world.store_proxy.behaviour = behaviour
    if behaviour.refuses:
        world.store_proxy.reset()
    time.sleep(for_s)  # the fault is a length of time
    world.store_proxy.behaviour = Behaviour()
    return Hit()
