"""Faults of connections: cut, or reset or forgotten when they are idle."""

import random

from tests.chaos.faults.hit import Hit
from tests.chaos.world import World

IDLE_S = (0.0, 1.0, 5.0, 20.0)


def reset_redis_connections(world: World, rng: random.Random) -> Hit:
    for member in world.redis.members:
        member.proxy.reset()
    return Hit()


def reset_idle_connections(world: World, rng: random.Random) -> Hit:
    """Reset idle connections, as a load balancer does."""
    idle_s = rng.choice(IDLE_S[1:])
    return Hit(sum(member.proxy.reset(idle_s) for member in world.redis.members) > 0)


def forget_idle_connections(world: World, rng: random.Random) -> Hit:
    """Forget idle connections, as a NAT with a full table does: neither end is notified."""
    idle_s = rng.choice(IDLE_S)
    return Hit(world.redis.master.proxy.forget(idle_s) > 0)
