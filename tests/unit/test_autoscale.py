"""How many workers are wanted, as arithmetic: no process, no Redis."""

from heapq import heapreplace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.at_once import at_once
from worker.autoscale.policy import Decision, Load, Look, Policy, decide

POLICY = Policy(least=0, most=8, cooldown_s=60, step=8)


def load(
    waiting: int = 0,
    running: int = 0,
    run_s: float | None = 0.12,
    slots: int = 12,
    target_s: float = 5,
    submitted: int = 0,
    queue: str = "txt2img",
) -> Load:
    return Load(queue, waiting, running, run_s, slots, target_s, submitted)


def decided(policy: Policy, now: int, *looks: tuple[float, list[Load]]) -> Decision:
    return decide(policy, [Look(at, tuple(loads)) for at, loads in looks], now)


def wanted(*loads: Load, policy: Policy = POLICY, now: int = 0) -> int:
    return decided(policy, now, (0, list(loads))).wanted


# -- the need of one moment -------------------------------------------------------------


def test_the_worked_example_of_the_manual() -> None:
    """12 slots of 0.12 s are 10 ms a job: 12 jobs in hand and 500 more within 5 s."""
    assert load().jobs_per_worker == pytest.approx(512)
    assert wanted(load(waiting=2_000)) == 4
    assert wanted(load(waiting=512)) == 1
    assert wanted(load(waiting=513)) == 2


def test_nothing_to_do_needs_nobody_and_one_job_needs_somebody() -> None:
    assert wanted(load()) == 0
    assert wanted(load(waiting=1)) == 1
    assert wanted(load(running=1)) == 1


@at_once(
    "jobs, run_s, slots, target_s",
    [(100, 2, 1, 10), (73, 3, 4, 5), (500, 1, 8, 20), (2_000, 0.12, 12, 5), (7, 60, 1, 5)],
)
def test_the_last_job_begins_within_the_target_and_with_one_worker_fewer_it_does_not(
    jobs: int, run_s: float, slots: int, target_s: float
) -> None:
    some = load(jobs, run_s=run_s, slots=slots, target_s=target_s)
    count = wanted(some, policy=Policy(0, 1_000, 60, 1_000))
    assert last_start_s(jobs, run_s, slots * count) <= target_s
    assert last_start_s(jobs, run_s, slots * (count - 1)) > target_s


def last_start_s(jobs: int, run_s: float, slots: int) -> float:
    """When the last job begins on so many slots, whose jobs end one after the other."""
    if slots == 0:
        return float("inf")
    ends = [run_s * (i + 1) / slots for i in range(slots)]  # of what runs: a heap, being sorted
    last_s = 0.0
    for _ in range(jobs - slots):
        last_s = heapreplace(ends, ends[0] + run_s)
    return last_s


def test_jobs_that_run_are_enough_for_the_slots_they_have() -> None:
    """Long jobs: five that run in five workers of one slot need five workers, or four soon."""
    assert wanted(load(running=5, run_s=600, slots=1), now=5) == 5
    assert wanted(load(waiting=1, running=5, run_s=600, slots=1), now=5) == 6


def test_no_more_workers_than_their_slots_can_be_filled() -> None:
    assert wanted(load(waiting=24, run_s=3_600, slots=12)) == 2


def test_queues_of_one_device_add_up() -> None:
    assert wanted(load(waiting=300), load(waiting=300, queue="img2txt")) == 2


def test_a_bulk_queue_has_its_own_target() -> None:
    """Messages of 3 s, two at a time, are 1.5 s each: 42 of them within a minute."""
    bulk = load(waiting=42, run_s=3, slots=2, target_s=60, queue="txt2img.bulk")
    assert bulk.jobs_per_worker == pytest.approx(42)
    assert wanted(bulk) == 1


def test_unmeasured_jobs_are_measured_by_one_worker_first() -> None:
    assert wanted(load(waiting=5_000, run_s=None)) == 1
    assert wanted(load(waiting=1, run_s=None)) == 1


# -- bounds, steps and calm -------------------------------------------------------------


def test_the_bounds_hold() -> None:
    assert wanted(load(waiting=1_000_000)) == 8
    assert wanted(load(), policy=Policy(2, 8, 60, 8)) == 2


def test_no_more_are_added_at_once_than_a_step() -> None:
    policy = Policy(0, 8, 60, 3)
    assert wanted(load(waiting=1_000_000), policy=policy) == 3
    assert wanted(load(waiting=1_000_000), policy=policy, now=6) == 8


def test_the_least_are_there_at_once_whatever_the_step() -> None:
    assert wanted(load(), policy=Policy(6, 8, 60, 1)) == 6


def test_workers_stay_for_as_long_as_the_cooldown() -> None:
    busy, calm = [load(waiting=2_000)], [load()]
    assert decided(POLICY, 4, (0, busy), (59, calm)).wanted == 4
    assert decided(POLICY, 4, (0, busy), (60, calm)).wanted == 0


def test_more_are_wanted_at_once_also_within_the_cooldown() -> None:
    assert decided(POLICY, 1, (0, [load(waiting=1)]), (2, [load(waiting=2_000)])).wanted == 4


def submitting(per_s: float, from_s: int, to_s: int) -> list[tuple[float, list[Load]]]:
    """A look each second at workers that keep up with a steady load: nothing waits."""
    return [(at, [load(running=1, submitted=round(per_s * at))]) for at in range(from_s, to_s)]


def test_workers_that_keep_up_with_a_steady_load_are_kept() -> None:
    """240 jobs a second of 10 ms are 2.4 workers' work, and 3 with some time to spare."""
    found = decided(POLICY, 4, *submitting(240, 0, 90))
    assert found.arrivals == pytest.approx(3.0, rel=0.05)
    assert found.recent == 1
    assert found.wanted == 3


def test_a_moment_without_arrivals_stops_no_worker() -> None:
    pause = [(at, [load(running=1, submitted=90 * 240)]) for at in range(90, 110)]
    assert decided(POLICY, 3, *submitting(240, 0, 90), *pause).wanted == 3


def test_a_cooldown_after_the_last_job_nobody_is_left() -> None:
    calm = [(at, [load(submitted=90 * 240)]) for at in range(90, 151)]
    assert decided(POLICY, 3, *submitting(240, 0, 90), *calm).wanted == 0


def test_a_restarted_ledger_counts_no_arrivals() -> None:
    found = decided(POLICY, 1, (0, [load(submitted=900)]), (10, [load(submitted=3)]))
    assert found.arrivals == 0


def test_a_queue_that_appears_counts_from_then() -> None:
    found = decided(POLICY, 0, (0, []), (10, [load(submitted=900)]))
    assert found.arrivals == 0


# -- for all inputs ---------------------------------------------------------------------


loads = st.builds(
    load,
    waiting=st.integers(0, 10**7),
    running=st.integers(0, 10**5),
    run_s=st.none() | st.floats(1e-4, 1e4),
    slots=st.integers(1, 256),
    target_s=st.floats(0.1, 3_600),
    submitted=st.integers(0, 10**9),
)
policies = st.integers(0, 16).flatmap(
    lambda least: st.builds(
        Policy, st.just(least), st.integers(max(1, least), 64), st.floats(1, 600), st.integers(1, 8)
    )
)


@given(policies, st.lists(st.lists(loads, max_size=4), min_size=1, max_size=6), st.integers(0, 64))
def test_what_is_wanted_is_within_the_bounds(
    policy: Policy, seen: list[list[Load]], now: int
) -> None:
    found = decided(policy, now, *((2.0 * i, some) for i, some in enumerate(seen)))
    assert policy.least <= found.wanted <= policy.most
    assert found.wanted <= max(now, policy.least) + policy.step


@given(loads, st.integers(1, 10**6))
def test_more_jobs_never_want_fewer_workers(some: Load, more: int) -> None:
    larger = load(some.waiting + more, some.running, some.run_s, some.slots, some.target_wait_s)
    assert wanted(larger) >= wanted(some)


@given(loads)
@example(Load("txt2img", waiting=0, running=1, run_s=1e-4, slots=1, target_wait_s=200))
def test_a_need_is_never_left_to_nobody(some: Load) -> None:
    assert (wanted(some) > 0) == (some.jobs > 0)
