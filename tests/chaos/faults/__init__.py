"""The faults: each is a function that breaks something in the world and returns what was hit."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.chaos.faults import kills, machine, network, operators, redis, stores
from tests.chaos.faults.hit import Hit
from tests.chaos.world import World

__all__ = ["FAULTS", "Fault", "Hit"]


@dataclass(frozen=True)
class Fault:
    """A fault, with its frequency relative to the others.

    `handovers` is how many plain messages it may lose while Redis hands them to a worker.
    """

    do: Callable[[World, random.Random], Hit]
    weight: int
    handovers: int = 0


FAULTS = {
    "decoder killed": Fault(kills.kill_decoder, 4),
    "Celery worker killed": Fault(kills.kill_celery, 3, 1),
    "model host killed": Fault(kills.kill_model_host, 3),
    "model host killed in mid-load": Fault(kills.kill_loading_host, 3),
    "Celery worker killed in mid-switch": Fault(kills.kill_switching_celery, 2, 1),
    "supervisor killed": Fault(kills.kill_supervisor, 2, 1),
    "background process killed": Fault(kills.kill_background, 2),
    "gateway killed": Fault(kills.kill_gateway, 1),
    "Redis restarted": Fault(redis.restart_redis, 2, 1),
    "Redis paused": Fault(redis.pause_redis, 1, 1),
    "Redis failed over": Fault(redis.fail_over, 2, 1),
    "Redis read-only": Fault(redis.make_read_only, 2, 1),
    "Redis's disk full": Fault(redis.fill_disk_of_redis, 2, 1),
    "Redis connections reset": Fault(network.reset_redis_connections, 2, 1),
    "idle connections reset": Fault(network.reset_idle_connections, 2, 1),
    "idle connections forgotten": Fault(network.forget_idle_connections, 2, 2),
    "store refuses": Fault(stores.refuse_store, 1),
    "store slow": Fault(stores.slow_store, 1),
    "every third put fails": Fault(stores.fail_every_third_put, 1),
    "store full": Fault(stores.fill_store, 2),
    "disk full": Fault(machine.fill_disk, 2),
    "clock stepped": Fault(machine.step_clock, 2),
    "clock of a worker stepped": Fault(machine.step_clock_of_worker, 2),
    "queue paused": Fault(operators.pause_a_queue, 2),
}
