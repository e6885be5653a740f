"""Computes how many workers there should be from the load of the queues.

docs/scaling.md derives the arithmetic. In short, a worker that runs `slots` jobs at once, each
for `run_s`, suffices for `slots + target_wait / (run_s / slots)` jobs: the last of them starts
just within the target. On Kubernetes, this number is KEDA's threshold.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

MOST_BUSY = 0.8  # max utilization of a worker: random arrivals queue up before it is full


@dataclass(frozen=True)
class Load:
    """One queue at one moment.

    `run_s` is the run time of an attempt at one of its jobs, None until one has ended; `submitted`
    counts since the ledger began.
    """

    queue: str
    waiting: int
    running: int
    run_s: float | None
    slots: int
    target_wait_s: float
    submitted: int = 0

    @property
    def jobs(self) -> int:
        return self.waiting + self.running

    @property
    def job_s(self) -> float | None:
        """The seconds of a worker's time per job while all of its slots are in use."""
        return None if self.run_s is None else self.run_s / self.slots

    @property
    def jobs_per_worker(self) -> float:
        """How many of these jobs one worker suffices for; its slots while `run_s` is unknown."""
        if not self.job_s:
            return float(self.slots)
        return self.slots + self.target_wait_s / self.job_s

    @property
    def need(self) -> float:
        """The workers that these jobs need; at most one while `run_s` is unknown."""
        need = self.jobs / self.jobs_per_worker
        return need if self.job_s else min(1.0, need)


@dataclass(frozen=True)
class Look:
    """The load of all queues that the workers serve, at one moment."""

    at: float
    loads: tuple[Load, ...]

    @property
    def need(self) -> float:
        """The workers for all waiting and running jobs: a device runs them one after the other."""
        return sum(load.need for load in self.loads)


@dataclass(frozen=True)
class Policy:
    """The bounds of decisions; `step` is the max number of workers that one decision adds."""

    least: int
    most: int
    cooldown_s: float
    step: int


@dataclass(frozen=True)
class Decision:
    """How many workers are wanted, and the figures behind that."""

    wanted: int
    need: float
    """Workers for the waiting and running jobs."""
    arrivals: float
    """Workers for the max recent rate of submissions."""
    recent: int
    """The max need within the cooldown."""


def decide(policy: Policy, looks: Sequence[Look], now: int) -> Decision:
    """Return how many workers there should be, given `now` workers and `looks`, the latest last.

    Workers are added at once, up to `step`. They are removed only when no look within the cooldown
    needed as many, so that no worker is stopped in a short lull and then started again.
    """
    recent = within(looks, policy.cooldown_s)
    need, arrivals = recent[-1].need, most_arriving(recent, policy.cooldown_s / 2)
    most_needed = max(whole(look.need) for look in recent)
    target = _clamp(max(most_needed, whole(arrivals)), policy.least, policy.most)
    wanted = min(target, max(now, policy.least) + policy.step)
    return Decision(wanted, need, arrivals, most_needed)


def within(looks: Sequence[Look], window_s: float) -> list[Look]:
    """Return the looks of the last `window_s` seconds; the latest one is always among them."""
    return [look for look in looks if look.at > looks[-1].at - window_s] or [looks[-1]]


def most_arriving(looks: Sequence[Look], window_s: float) -> float:
    """Return the max of `arriving` within a window: it fluctuates, and workers should not."""
    ends = [i for i, look in enumerate(looks, 1) if look.at > looks[-1].at - window_s]
    return max(arriving(within(looks[:i], window_s), window_s) for i in ends)


def arriving(looks: Sequence[Look], window_s: float) -> float:
    """Return the workers needed, with some headroom, to keep up with the window's submissions.

    Without this, workers that keep up with a steady load would be stopped because nothing waits.
    """
    first, last = looks[0], looks[-1]
    span_s = max(window_s, last.at - first.at)
    before = {load.queue: load.submitted for load in first.loads}
    came = {q.queue: max(0, q.submitted - before.get(q.queue, q.submitted)) for q in last.loads}
    busy = sum(came[load.queue] / span_s * (load.job_s or 0.0) for load in last.loads)
    return busy / MOST_BUSY


def whole(need: float) -> int:
    """Round a need up to whole workers; any need above zero is at least one."""
    rounded = math.ceil(round(need, 6))  # 4.0000000001 is no reason for a fifth
    return max(rounded, int(need > 0))


def _clamp(value: int, least: int, most: int) -> int:
    return max(least, min(most, value))
