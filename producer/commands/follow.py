"""The commands that show, await, cancel, retry and delete jobs."""

from typing import Annotated, Any

import typer

from crossmodal.console import FAILED, Json, print_json, print_table, say, shown_time
from crossmodal.errors import ResultTimeout
from crossmodal.jobs.record import Job, JobState, QueueStatus
from crossmodal.kinds.images import stored_format
from producer.client import Client
from producer.commands.outcome import check_out, show_result
from producer.commands.submit import Out, Timeout, opened
from producer.handle import JobHandle
from producer.patience import how_to_go_on, interruptible, wait_for
from producer.place import place

JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id.")]
STATES = ", ".join(JobState)
SHOWN = 60  # characters of a prompt in the list


def status(job_id: JobId, as_json: Json = False) -> None:
    """Show a job's state, attempt, queue position and estimated wait."""
    with opened() as client:
        found = client.status(job_id)
        if as_json:
            print_json(found.model_dump(mode="json"))
            return
        rows = [(k, v) for k, v in found.model_dump(mode="json").items() if v is not None]
        if found.failure is not None:
            rows[-1] = ("failure", f"{found.failure.code}: {found.failure.message}")
        print_table(("", ""), rows)


def wait(
    job_ids: Annotated[list[str], typer.Argument(metavar="ID", help="The jobs' ids.")],
    timeout_s: Timeout = None,
    as_json: Json = False,
) -> None:
    """Wait until jobs have ended; exit status 0 when all of them succeeded."""
    with opened() as client, interruptible([JobHandle(client, i) for i in job_ids]):
        wait_for(client, [client.record(i) for i in job_ids], timeout_s)
        states = {job_id: client.record(job_id).state for job_id in job_ids}
        if as_json:
            print_json(states)
        else:
            print_table(("job", "state"), states.items())
        if any(state is not JobState.SUCCEEDED for state in states.values()):
            raise typer.Exit(FAILED)


def result(
    job_id: JobId, out: Out = None, timeout_s: Timeout = None, as_json: Json = False
) -> None:
    """Wait until a job has ended, and show its result; --timeout 0 does not wait."""
    with opened() as client, interruptible([JobHandle(client, job_id)]):
        job = client.record(job_id)
        if out is not None:
            check_out(client, out, stored_format(job.task.kind, job.params))
        if timeout_s == 0 and not job.state.is_terminal:
            raise ResultTimeout(
                f"job {job_id} is {place(client.status(job_id))}: {how_to_go_on([job_id])}"
            )
        wait_for(client, [job], timeout_s)
        show_result(client, job_id, out, as_json)


def cancel(
    job_id: Annotated[str | None, typer.Argument(metavar="[ID]", help="The job's id.")] = None,
    all_jobs: Annotated[
        bool,
        typer.Option("--all", help="All jobs that have not ended and match the other options."),
    ] = False,
    owner: Annotated[
        str | None, typer.Option(metavar="KEY", help="Only jobs of the API key with this id.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(metavar="KIND", help="Only jobs of this kind.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only jobs of this model.")
    ] = None,
    state: Annotated[
        JobState | None, typer.Option(metavar="STATE", help="Only queued or only running jobs.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Cancel a job that has not ended (exit status 1 when it had), or many with --all."""
    filters = {"owner": owner, "task": task, "model": model, "state": state}
    if all_jobs is (job_id is not None):
        raise typer.BadParameter("give the ID of a job, or --all")
    if job_id is not None:
        if said := [f"--{name}" for name, value in filters.items() if value is not None]:
            raise typer.BadParameter(f"{said[0]} needs --all")
        _cancel_one(job_id, as_json)
        return
    with opened() as client:
        count = client.cancel_all(owner, task=task, model=model, state=state)
        if as_json:
            print_json({"canceled": count})
        else:
            say(f"{count} canceled")


def _cancel_one(job_id: str, as_json: bool) -> None:
    with opened() as client:
        state = client.cancel(job_id)
        if as_json:
            print_json({"id": job_id, "state": state})
        else:
            say(f"{job_id} {state}")
        if state is not JobState.CANCELED:
            raise typer.Exit(FAILED)


def retry(job_id: JobId, as_json: Json = False) -> None:
    """Submit a failed, canceled or expired job again, and print the new job's id."""
    with opened() as client:
        new = client.retry(job_id)
        if as_json:
            print_json({"id": new.id, "retry_of": job_id})
        else:
            say(new.id)


def delete(job_id: JobId, as_json: Json = False) -> None:
    """Delete an ended job's record and its pictures."""
    with opened() as client:
        client.delete(job_id)
        if as_json:
            print_json({"id": job_id, "deleted": True})
        else:
            say(f"{job_id} deleted")


def jobs(
    state: Annotated[
        JobState | None, typer.Option(metavar="STATE", help=f"Only jobs in this state: {STATES}.")
    ] = None,
    task: Annotated[
        str | None, typer.Option(metavar="KIND", help="Only jobs of this kind.")
    ] = None,
    owner: Annotated[
        str, typer.Option(metavar="KEY", help="Only jobs of the API key with this id.")
    ] = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="Max number of jobs.")] = 20,
    cursor: Annotated[
        str | None, typer.Option(metavar="CURSOR", help="The cursor at the end of the last list.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List jobs, the latest first, without those of batches."""
    with opened() as client:
        page = client.jobs(owner, state=state, task=task, cursor=cursor, limit=limit)
        if as_json:
            found = [job.model_dump(mode="json") for job in page.jobs]
            print_json({"jobs": found, "next_cursor": page.next_cursor})
            return
        print_table(("id", "created", "task", "state", "about"), map(_row, page.jobs), "no jobs")
        if page.next_cursor is not None:
            say(f"more: the same with --cursor {page.next_cursor}")


def _row(job: Job) -> tuple[Any, ...]:
    about = str(job.params.get("prompt", ""))[:SHOWN]
    if job.failure is not None:
        about = job.failure.code
    return job.id, shown_time(job.created_at), job.task, job.state, about


def queue(as_json: Json = False) -> None:
    """Show depth, running jobs, oldest wait and workers of each queue."""
    with opened() as client:
        queues, workers = client.queues(), _workers(client)
        if as_json:
            print_json(
                [q.model_dump(mode="json") | {"workers": workers.get(q.queue, [])} for q in queues]
            )
            return
        print_table(
            ("queue", "depth", "running", "oldest wait (s)", "succeeded", "failed", "workers"),
            [
                (
                    q.queue + " (paused)" * q.paused,
                    q.depth,
                    q.running,
                    q.oldest_wait_s,
                    q.finished.get("succeeded", 0),
                    q.finished.get("failed", 0),
                    ", ".join(workers.get(q.queue, [])) or "none",
                )
                for q in queues
            ],
        )


Queues = Annotated[
    list[str], typer.Argument(metavar="QUEUE", help="As listed by `crossmodal queue`.")
]


def pause(names: Queues, as_json: Json = False) -> None:
    """Pause queues: running jobs finish, waiting ones stay."""
    with opened() as client:
        _show_queues([client.pause(name) for name in names], as_json)


def resume(names: Queues, as_json: Json = False) -> None:
    """Resume paused queues."""
    with opened() as client:
        _show_queues([client.resume(name) for name in names], as_json)


def _show_queues(found: list[QueueStatus], as_json: bool) -> None:
    if as_json:
        print_json([one.model_dump(mode="json") for one in found])
        return
    for one in found:
        what = "paused" if one.paused else "resumed"
        say(f"{one.queue} is {what}: {one.depth} wait, {one.running} run")


def _workers(client: Client) -> dict[str, list[str]]:
    """Return the names of the workers of each queue."""
    found: dict[str, list[str]] = {}
    for worker in client.workers():
        for name in worker.queues:
            found.setdefault(name, []).append(worker.name)
    return found
