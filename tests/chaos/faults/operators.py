"""What an operator does during a storm."""

import random
import time

from crossmodal.errors import BrokerUnavailable, QueueNotFound
from crossmodal.kinds.queue import Queue
from crossmodal.kinds.task import Task
from crossmodal.processes import wait_until
from producer import Client
from tests.chaos.faults.hit import Hit
from tests.chaos.world import World

RESUME_S = 120.0


def pause_a_queue(world: World, rng: random.Random) -> Hit:
    """Pause a queue for a while. It is no fault: waiting jobs stay, whatever else happens."""
    queue = str(Queue(Task(rng.choice(["txt2img", "txt2img.bulk"])), _a_model(world, rng)))
    with Client(world.settings(through_proxy=False)) as client:
        try:
            client.pause(queue)
            time.sleep(rng.uniform(2, 8))  # the fault is a length of time
        except (BrokerUnavailable, QueueNotFound):  # another fault, or not announced yet
            return Hit(False)
        finally:
            wait_until(lambda: _is_resumed(client, queue), RESUME_S)
    return Hit()


def _a_model(world: World, rng: random.Random) -> str | None:
    """Return a model that has a queue of its own, or None for the default one."""
    return rng.choice([None, *world.models[1:]])


def _is_resumed(client: Client, queue: str) -> bool:
    try:
        client.run(client.ledger.resume(queue))
    except BrokerUnavailable:
        return False
    return True
