"""What can go wrong, each as a function that does it to the world, and who is hit by it."""

import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import psutil

from crossmodal.errors import BrokerUnavailable, QueueNotFound
from crossmodal.kinds.queue import Queue
from crossmodal.kinds.task import Task
from crossmodal.processes import wait_until
from producer import Client
from tests.chaos.proxy import Behaviour
from tests.chaos.world import Service, Worker, World

RESUME_S = 120.0
MOMENT_S = 8.0  # how long the right moment for a fault is waited for
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
    hosts = worker.hosts()
    return _kill(worker, rng.choice(hosts) if hosts else None)


def kill_loading_host(world: World, rng: random.Random) -> Hit:
    """With several models, one is loaded every few seconds."""
    found: list[tuple[Worker, psutil.Process]] = []

    def is_there() -> bool:
        found.extend((worker, host) for worker in world.workers for host in worker.loading_hosts())
        return bool(found)

    wait_until(is_there, MOMENT_S if world.models else 0)
    return _kill(*rng.choice(found)) if found else Hit(False)


def kill_switching_celery(world: World, rng: random.Random) -> Hit:
    """One that gives up a model for another, or waits for that."""
    found: list[Worker] = []
    if len(world.models) < 2:
        return Hit(False)
    with Client(world.settings(through_proxy=False)) as client:

        def is_there() -> bool:
            switching = {worker.name for worker in client.workers() if worker.loading}
            found.extend(one for one in world.workers if one.celery_name in switching)
            return bool(found)

        with suppress(BrokerUnavailable):
            wait_until(is_there, MOMENT_S)
    if not found:
        return Hit(False)
    worker = rng.choice(found)
    return _kill(worker, worker.celery())


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


def pause_a_queue(world: World, rng: random.Random) -> Hit:
    """An operator's verb and no fault: what waits stays, whatever else is going on."""
    queue = str(Queue(Task(rng.choice(["txt2img", "txt2img.bulk"])), _a_model(world, rng)))
    with Client(world.settings(through_proxy=False)) as client:
        try:
            client.pause(queue)
            time.sleep(rng.uniform(2, 8))  # the fault is a length of time
        except (BrokerUnavailable, QueueNotFound):  # another fault, or no worker has told of it yet
            return Hit(False)
        finally:
            wait_until(lambda: _is_resumed(client, queue), RESUME_S)
    return Hit()


def _a_model(world: World, rng: random.Random) -> str | None:
    """One that has a queue of its own, or the default one."""
    return rng.choice([None, *world.models[1:]])


def _is_resumed(client: Client, queue: str) -> bool:
    try:
        client.run(client.ledger.resume(queue))
    except BrokerUnavailable:
        return False
    return True


CUT_HANDOVERS = {  # what may take a message with it that a worker is just being given
    "Celery worker killed", "Celery worker killed in mid-switch", "supervisor killed",
    "Redis restarted", "Redis paused", "Redis connections reset",
}  # fmt: skip
FAULTS: dict[str, tuple[Fault, int]] = {  # with how often, relative to one another
    "decoder killed": (kill_decoder, 4),
    "Celery worker killed": (kill_celery, 3),
    "model host killed": (kill_model_host, 3),
    "model host killed in mid-load": (kill_loading_host, 3),
    "Celery worker killed in mid-switch": (kill_switching_celery, 2),
    "supervisor killed": (kill_supervisor, 2),
    "background process killed": (kill_background, 2),
    "gateway killed": (kill_gateway, 1),
    "Redis restarted": (restart_redis, 2),
    "Redis paused": (pause_redis, 1),
    "Redis connections reset": (reset_redis_connections, 2),
    "store refuses": (refuse_store, 1),
    "store slow": (slow_store, 1),
    "every third put fails": (fail_every_third_put, 1),
    "queue paused": (pause_a_queue, 2),
}
