"""Faults of Redis: restarted, paused, failed over, refusing writes."""

import random
import signal
import time

import psutil

from tests.chaos.faults.hit import Hit
from tests.chaos.world import World


def restart_redis(world: World, rng: random.Random) -> Hit:
    world.redis.restart(rng.choice([signal.SIGTERM, signal.SIGKILL]))
    return Hit()


def pause_redis(world: World, rng: random.Random) -> Hit:
    server = psutil.Process(world.valkey.pid)
    server.suspend()
    time.sleep(rng.uniform(2, world.longest_pause_s))  # the fault is a length of time
    server.resume()
    return Hit()


def fail_over(world: World, rng: random.Random) -> Hit:
    """Make Sentinel swap the master and the replica."""
    return Hit(world.redis.fail_over())


def make_read_only(world: World, rng: random.Random) -> Hit:
    """Cause READONLY errors, as after a failover that clients have not noticed."""
    with world.redis.read_only():
        time.sleep(rng.uniform(2, 8))  # the fault is a length of time
    return Hit()


def fill_disk_of_redis(world: World, rng: random.Random) -> Hit:
    """Cause MISCONF errors: the append-only file cannot be written."""
    disk = world.redis.master.disk
    if not disk.may_fill:
        return Hit(False)
    disk.fill()
    time.sleep(rng.uniform(2, 8))  # the fault is a length of time
    disk.free()
    world.redis.rewrite()
    return Hit()
