"""Kills of processes: parts of a worker, also while it loads or switches, and services."""

import random
import signal
from contextlib import suppress
from dataclasses import replace

import psutil

from crossmodal.errors import BrokerUnavailable
from crossmodal.processes import wait_until
from producer import Client
from tests.chaos.faults.hit import Hit
from tests.chaos.world import Service, Worker, World

MOMENT_S = 8.0  # max wait for the right moment for a fault


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
    """Kill a host that loads. With several models, one loads every few seconds."""
    found: list[tuple[Worker, psutil.Process]] = []

    def is_there() -> bool:
        found.extend((worker, host) for worker in world.workers for host in worker.loading_hosts())
        return bool(found)

    wait_until(is_there, MOMENT_S if world.models else 0)
    return _kill(*rng.choice(found)) if found else Hit(False)


def kill_switching_celery(world: World, rng: random.Random) -> Hit:
    """Kill a worker that gives up a model for another, or waits to do so."""
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
