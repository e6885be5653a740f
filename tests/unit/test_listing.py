"""Owners' lists of jobs: a job is on its owner's as long as it has a record, and no longer."""

from collections.abc import Iterator
from typing import Any

import pytest

from crossmodal.jobs.calls import Call
from crossmodal.jobs.listing import MAX_READ, Listing
from crossmodal.jobs.names import ended_jobs_key, jobs_key, new_job_id
from crossmodal.jobs.origin import Origin
from crossmodal.jobs.record import Job, JobState
from crossmodal.jobs.submission import Submission
from crossmodal.kinds.task import Task
from crossmodal.settings import Settings
from tests.ledgers import Ledger
from tests.waiting import until

OWNERS = pytest.mark.parametrize("owner", ["", "somebody"])


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    with Ledger(settings) as ledger:
        yield ledger


def submit(ledger: Ledger, owner: str) -> str:
    job_id = new_job_id()
    return ledger.submit(Submission(job_id, Task("txt2img"), "{}", "", origin=Origin(owner)))[0]


def listed(settings: Settings, ledger: Ledger, owner: str) -> set[str]:
    page = ledger.runner.run(Listing(settings, ledger.calls).page(owner))
    return {job.id for job in page.jobs}


@pytest.fixture
def forgetful(settings: Settings) -> Iterator[Ledger]:
    """A ledger whose jobs' records, and whatever goes with them, are gone as soon as they end."""
    ledger = Ledger(settings.model_copy(update={"retention_s": 0}))
    yield ledger
    ledger.close()


@OWNERS
def test_a_job_that_waits_for_long_is_listed_whatever_ends_meanwhile(
    settings: Settings, ledger: Ledger, forgetful: Ledger, admin: Any, owner: str
) -> None:
    waits = submit(ledger, owner)
    for _ in range(2):  # the second end is long after all were submitted that wait
        forgetful.cancel(submit(ledger, owner))
        assert listed(settings, ledger, owner) == {waits}


@OWNERS
def test_a_job_is_listed_until_its_retention_after_its_end(
    settings: Settings, ledger: Ledger, forgetful: Ledger, admin: Any, owner: str
) -> None:
    waits, other = submit(ledger, owner), submit(ledger, owner)
    forgetful.cancel(other)
    ledger.cancel(waits)
    assert listed(settings, ledger, owner) == {waits}


@OWNERS
def test_a_list_is_no_longer_than_what_has_records(
    settings: Settings, ledger: Ledger, forgetful: Ledger, admin: Any, owner: str
) -> None:
    waits = submit(ledger, owner)
    for _ in range(3):
        forgetful.cancel(submit(ledger, owner))
    keys = jobs_key(settings.key_prefix, owner), ended_jobs_key(settings.key_prefix, owner)
    assert [admin.zrange(key, 0, -1) for key in keys] == [[waits], []]
    forgetful.cancel(waits)
    assert not admin.exists(*keys)


def test_the_records_of_jobs_that_have_ended_are_gone_by_themselves(
    settings: Settings, ledger: Ledger, admin: Any
) -> None:
    brief = Ledger(settings.model_copy(update={"retention_s": 1}))
    for owner in ("", "somebody"):
        brief.cancel(submit(ledger, owner))
    prefix = settings.key_prefix
    lists = [key(prefix, owner) for owner in ("", "somebody") for key in (jobs_key, ended_jobs_key)]
    assert admin.exists(*lists) == 4
    until(lambda: not admin.exists(*lists), 60)
    brief.close()


def test_what_was_deleted_is_on_no_list(settings: Settings, ledger: Ledger, admin: Any) -> None:
    job_id = submit(ledger, "somebody")
    ledger.cancel(job_id)
    ledger.remove(job_id)
    prefix = settings.key_prefix
    assert not admin.exists(jobs_key(prefix, "somebody"), ended_jobs_key(prefix, "somebody"))


@pytest.fixture
def spy(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the jobs whose whole records are read."""
    seen: list[str] = []
    get = ledger.calls.get

    def noted(job_id: str) -> Call[Job]:
        seen.append(job_id)
        return get(job_id)

    monkeypatch.setattr(ledger.calls, "get", noted)
    return seen


def test_a_page_reads_the_records_of_few_that_are_not_asked_for(
    settings: Settings, ledger: Ledger, spy: list[str]
) -> None:
    wanted = submit(ledger, "")
    ledger.cancel(wanted)
    for _ in range(MAX_READ + 10):
        submit(ledger, "")
    listing = Listing(settings, ledger.calls)
    first = ledger.runner.run(listing.page("", state=JobState.CANCELED))
    assert (first.jobs, spy) == ([], [])
    last = ledger.runner.run(
        listing.page("", state=JobState.CANCELED, cursor=first.next_cursor, limit=1)
    )
    assert [job.id for job in last.jobs] == spy == [wanted]


@pytest.mark.parametrize("task", [None, Task("txt2img")])
def test_a_job_whose_time_is_up_is_found_among_the_expired(
    settings: Settings, ledger: Ledger, task: Task | None
) -> None:
    job_id, _ = ledger.submit(
        Submission(new_job_id(), Task("txt2img"), "{}", "", expires_in_s=0.01)
    )
    listing = Listing(settings, ledger.calls)

    def found() -> bool:
        page = ledger.runner.run(listing.page("", state=JobState.EXPIRED, task=task))
        return [job.id for job in page.jobs] == [job_id]

    until(found, 20, "its end")
