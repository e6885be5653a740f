"""How many workers there should be: what the queues look like goes in, a number comes out.

docs/scaling.md derives the arithmetic. In short, a worker that holds `slots` jobs at once, each
for `run_s`, is good for `slots + target_wait / (run_s / slots)` of them: the last of these begins
just within the target. Kubernetes scales by the same number, as KEDA's threshold.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

MOST_BUSY = 0.8  # of its time a worker may be; jobs that come at random pile up before one is full


@dataclass(frozen=True)
class Load:
    """One queue at one moment.

    `run_s` is how long an attempt at one of its jobs takes, None as long as none has ended;
    `submitted` counts since the ledger began.
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
        """Of a worker, that falls to one job while all of its slots are in use."""
        return None if self.run_s is None else self.run_s / self.slots

    @property
    def jobs_per_worker(self) -> float:
        """How many of these jobs one worker is good for; of unmeasured ones, what it holds."""
        if not self.job_s:
            return float(self.slots)
        return self.slots + self.target_wait_s / self.job_s

    @property
    def need(self) -> float:
        """Workers that these jobs need; unmeasured ones are measured by one worker first."""
        need = self.jobs / self.jobs_per_worker
        return need if self.job_s else min(1.0, need)


@dataclass(frozen=True)
class Look:
    """All queues that the workers serve, at one moment."""

    at: float
    loads: tuple[Load, ...]

    @property
    def need(self) -> float:
        """Workers for all jobs that wait or run: a device does them one after the other."""
        return sum(load.need for load in self.loads)


@dataclass(frozen=True)
class Policy:
    """The bounds of what is decided; `step` is the most workers that one decision adds."""

    least: int
    most: int
    cooldown_s: float
    step: int


@dataclass(frozen=True)
class Decision:
    """How many workers are wanted, and what that follows from."""

    wanted: int
    need: float
    """For what waits and runs now."""
    arrivals: float
    """To keep up with what is submitted, at its most lately."""
    recent: int
    """The most that were needed within the cooldown."""


def decide(policy: Policy, looks: Sequence[Look], now: int) -> Decision:
    """How many workers there should be where there are `now`; `looks` are in order, the last
    one is the present.

    More are added at once, `step` by `step`. Fewer only when no look within the cooldown asked
    for as many, so that a worker is not stopped for a moment's calm and started again.
    """
    recent = within(looks, policy.cooldown_s)
    need, arrivals = recent[-1].need, most_arriving(recent, policy.cooldown_s / 2)
    most_needed = max(whole(look.need) for look in recent)
    target = _clamp(max(most_needed, whole(arrivals)), policy.least, policy.most)
    wanted = min(target, max(now, policy.least) + policy.step)
    return Decision(wanted, need, arrivals, most_needed)


def within(looks: Sequence[Look], window_s: float) -> list[Look]:
    """The looks of the last `window_s`; the last one is always among them."""
    return [look for look in looks if look.at > looks[-1].at - window_s] or [looks[-1]]


def most_arriving(looks: Sequence[Look], window_s: float) -> float:
    """The most that `arriving` said within a window: it swings, and workers should not."""
    ends = [i for i, look in enumerate(looks, 1) if look.at > looks[-1].at - window_s]
    return max(arriving(within(looks[:i], window_s), window_s) for i in ends)


def arriving(looks: Sequence[Look], window_s: float) -> float:
    """Workers that are busy, but for some spare time, with what was submitted in the window.

    Without this, workers that keep up with a steady load would be stopped because nothing waits.
    """
    first, last = looks[0], looks[-1]
    span_s = max(window_s, last.at - first.at)
    before = {load.queue: load.submitted for load in first.loads}
    came = {q.queue: max(0, q.submitted - before.get(q.queue, q.submitted)) for q in last.loads}
    busy = sum(came[load.queue] / span_s * (load.job_s or 0.0) for load in last.loads)
    return busy / MOST_BUSY


def whole(need: float) -> int:
    """Workers for a need: none for none, one for anything up to one."""
    rounded = math.ceil(round(need, 6))  # 4.0000000001 is no reason for a fifth
    return max(rounded, int(need > 0))


def _clamp(value: int, least: int, most: int) -> int:
    return max(least, min(most, value))
