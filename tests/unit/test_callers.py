"""What is kept of callers between their requests: each its own."""

from collections.abc import Iterator
from typing import Any

import pytest

from crossmodal.jobs.callers import Callers
from crossmodal.jobs.names import new_job_id
from crossmodal.jobs.submission import Submission
from crossmodal.kinds.task import Task
from crossmodal.settings import Settings
from tests.ledgers import Ledger

PARAMS = '{"prompt": "a fox", "seed": 1}'


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    with Ledger(settings) as ledger:
        yield ledger


@pytest.fixture
def callers(settings: Settings, ledger: Ledger) -> Callers:
    return Callers(settings, ledger.calls)


def submitted(ledger: Ledger) -> str:
    return ledger.submit(Submission(new_job_id(), Task("txt2img"), PARAMS, ""))[0]


def test_a_chosen_model_is_the_callers_until_another_is(callers: Callers, ledger: Ledger) -> None:
    ledger.runner.run(callers.choose("one", "ink"))
    assert ledger.runner.run(callers.model("one")) == "ink"
    assert ledger.runner.run(callers.model("other")) is None
    ledger.runner.run(callers.choose("one", None))
    assert ledger.runner.run(callers.model("one")) is None


def test_jobs_are_attended_until_their_caller_leaves(callers: Callers, ledger: Ledger) -> None:
    jobs = [submitted(ledger) for _ in range(3)]
    for job in jobs:
        ledger.runner.run(callers.attend("one", job))
    ledger.runner.run(callers.leave("one", jobs[1]))
    found = ledger.runner.run(callers.attended("one"))
    assert [job.id for job in found] == [jobs[0], jobs[2]]
    assert ledger.runner.run(callers.attended("other")) == []


def test_what_nobody_waits_for_any_more_is_forgotten(
    callers: Callers, ledger: Ledger, admin: Any, settings: Settings
) -> None:
    ended, gone = submitted(ledger), new_job_id()
    for job in (ended, gone):
        ledger.runner.run(callers.attend("one", job))
    ledger.cancel(ended)
    assert ledger.runner.run(callers.attended("one")) == []
    assert not admin.exists(f"{settings.key_prefix}:api-key:one:attended")
