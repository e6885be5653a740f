"""What can go wrong, each as a function that does it to the world, and who is hit by it."""

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import psutil

from tests.chaos.proxy import Behaviour
from tests.chaos.world import Service, Worker, World

Fault = Callable[[World, random.Random], "Hit"]


@dataclass(frozen=True)
class Hit:
    """How a fault went: whether it found something to break, and the name of the worker hit.

    `doomed` is a Celery worker that the fault will end in a while, with what it still starts.
    """

    happened: bool = True
    worker: str | None = None
    doomed: psutil.Process | None = None


def _kill(worker: Worker, process: psutil.Process | None) -> Hit:
    name = worker.celery_name
    if process is None:  # it is being restarted after the last fault
        return Hit(False)
    try:
        process.send_signal(signal.SIGKILL)
    except psutil.NoSuchProcess:
        return Hit(False)
    return Hit(worker=name)


def kill_decoder(world: World, rng: random.Random) -> Hit:
    worker = rng.choice(world.workers)
    children = worker.decoders()
    return _kill(worker, rng.choice(children) if children else None)


def kill_celery(world: World, rng: random.Random) -> Hit:
    worker = rng.choice(world.workers)
    return _kill(worker, worker.celery())


def kill_model_host(world: World, rng: random.Random) -> Hit:
    worker = rng.choice(world.workers)
    return _kill(worker, worker.host())


def kill_supervisor(world: World, rng: random.Random) -> Hit:
    worker = rng.choice(world.workers)
    doomed = worker.celery()
    return replace(_kill(worker, worker.supervisor()), doomed=doomed)


def kill_background(world: World, rng: random.Random) -> Hit:
    return _kill_service(world.background)


def kill_gateway(world: World, rng: random.Random) -> Hit:
    return _kill_service(world.gateway)


def _kill_service(service: Service) -> Hit:
    process = service.process()
    if process is None:  # it is being restarted after the last fault
        return Hit(False)
    process.kill()
    return Hit()


def restart_redis(world: World, rng: random.Random) -> Hit:
    world.restart_valkey(rng.choice([signal.SIGTERM, signal.SIGKILL]))
    return Hit()


def pause_redis(world: World, rng: random.Random) -> Hit:
    server = psutil.Process(world.valkey.pid)
    server.suspend()
    time.sleep(rng.uniform(2, world.longest_pause_s))  # the fault is a length of time
    server.resume()
    return Hit()


def reset_redis_connections(world: World, rng: random.Random) -> Hit:
    world.redis_proxy.reset()
    return Hit()


def _store(world: World, rng: random.Random, behaviour: Behaviour) -> Hit:
    world.store_proxy.behaviour = behaviour
    if behaviour.refuses:
        world.store_proxy.reset()
    time.sleep(rng.uniform(2, 8))
    world.store_proxy.behaviour = Behaviour()
    return Hit()


def refuse_store(world: World, rng: random.Random) -> Hit:
    return _store(world, rng, Behaviour(refuses=True))


def slow_store(world: World, rng: random.Random) -> Hit:
    return _store(world, rng, Behaviour(delay_s=0.5))


def fail_every_third_put(world: World, rng: random.Random) -> Hit:
    return _store(world, rng, Behaviour(fails_every_put=3))


FAULTS: dict[str, tuple[Fault, int]] = {  # with how often, relative to one another
    "decoder killed": (kill_decoder, 4),
    "Celery worker killed": (kill_celery, 3),
    "model host killed": (kill_model_host, 3),
    "supervisor killed": (kill_supervisor, 2),
    "background process killed": (kill_background, 2),
    "gateway killed": (kill_gateway, 1),
    "Redis restarted": (restart_redis, 2),
    "Redis paused": (pause_redis, 1),
    "Redis connections reset": (reset_redis_connections, 2),
    "store refuses": (refuse_store, 1),
    "store slow": (slow_store, 1),
    "every third put fails": (fail_every_third_put, 1),
}
