"""Owners' lists of jobs: a job is on its owner's as long as it has a record, and no longer."""

from collections.abc import Iterator
from typing import Any

import pytest

from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.listing import Listing
from crossmodal.jobs.names import Task, ended_jobs_key, job_key, jobs_key, new_job_id
from crossmodal.jobs.origin import Origin
from crossmodal.settings import Settings
from tests.waiting import until

OWNERS = pytest.mark.parametrize("owner", ["", "somebody"])


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"retention_s": 1})


@pytest.fixture
def ledger(settings: Settings) -> Iterator[JobLedger]:
    ledger = JobLedger(settings)
    yield ledger
    ledger.close()


def submit(ledger: JobLedger, owner: str) -> str:
    job_id = new_job_id()
    return ledger.submit(job_id, Task.TXT2IMG, "{}", "", origin=Origin(owner))[0]


def listed(settings: Settings, ledger: JobLedger, redis: Any, owner: str) -> set[str]:
    return {job.id for job in Listing(settings, ledger, redis).page(owner).jobs}


def end_and_outlive(settings: Settings, ledger: JobLedger, redis: Any, job_id: str) -> None:
    """Cancel a job, and wait until its record, and whatever goes with it, is gone."""
    ledger.cancel(job_id)
    until(lambda: not redis.exists(job_key(settings.key_prefix, job_id)), 10)


@OWNERS
def test_a_job_that_waits_for_long_is_listed_whatever_ends_meanwhile(
    settings: Settings, ledger: JobLedger, admin: Any, owner: str
) -> None:
    waits = submit(ledger, owner)
    for _ in range(2):  # the second end is long after all were submitted that wait
        end_and_outlive(settings, ledger, admin, submit(ledger, owner))
        assert listed(settings, ledger, admin, owner) == {waits}


@OWNERS
def test_a_job_is_listed_until_its_retention_after_its_end(
    settings: Settings, ledger: JobLedger, admin: Any, owner: str
) -> None:
    waits, other = submit(ledger, owner), submit(ledger, owner)
    end_and_outlive(settings, ledger, admin, other)
    ledger.cancel(waits)
    assert listed(settings, ledger, admin, owner) == {waits}


@OWNERS
def test_a_list_is_no_longer_than_what_has_records(
    settings: Settings, ledger: JobLedger, admin: Any, owner: str
) -> None:
    waits, last = submit(ledger, owner), ""
    for _ in range(3):
        last = submit(ledger, owner)
        end_and_outlive(settings, ledger, admin, last)
    keys = jobs_key(settings.key_prefix, owner), ended_jobs_key(settings.key_prefix, owner)
    assert [set(admin.zrange(key, 0, -1)) for key in keys] == [{waits, last}, {last}]
    ledger.cancel(waits)
    until(lambda: not admin.exists(*keys), 10)


def test_what_was_deleted_is_on_no_list(settings: Settings, ledger: JobLedger, admin: Any) -> None:
    job_id = submit(ledger, "somebody")
    ledger.cancel(job_id)
    ledger.remove(job_id)
    prefix = settings.key_prefix
    assert not admin.exists(jobs_key(prefix, "somebody"), ended_jobs_key(prefix, "somebody"))
