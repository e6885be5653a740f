"""`crossmodal dead`: list dead letters, replay them, or drop them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from crossmodal.console import (
    FAILED,
    Json,
    errors_to_exit_status,
    print_error,
    print_json,
    print_table,
    say,
    shown_time,
)
from crossmodal.errors import CrossmodalError, InvalidParams, ModelBroken, QueueFull
from crossmodal.jobs.record import DeadLetter
from producer.client import Client, CommandClient
from producer.operators import Letters
from producer.replay import replay

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="List, show, replay or drop dead letters."
)

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID")]
All = Annotated[bool, typer.Option("--all", help="All dead letters.")]
Code = Annotated[str | None, typer.Option(help="All dead letters with this error code.")]
SHOWN = 72  # characters of a message in the list


@contextmanager
def _opened() -> Iterator[tuple[Client, Letters]]:
    with errors_to_exit_status(), CommandClient() as client:
        yield client, client.dead_letters


@app.command("list")
def list_(code: Code = None, as_json: Json = False) -> None:
    """List dead letters, the latest first."""
    with _opened() as (_, dead):
        letters = list(dead.list(code))
        if as_json:
            print_json([_as_json(letter) for letter in letters])
            return
        print_table(
            ("id", "given up", "queue", "code", "attempts", "cause"),
            [
                (
                    x.id,
                    shown_time(x.at),
                    x.queue,
                    x.code,
                    x.job.attempt if x.job else None,
                    x.message[:SHOWN],
                )
                for x in letters
            ],
            "no dead letters" if code is None else f"no dead letters with the code {code}",
        )


@app.command()
def show(letter_id: Annotated[str, typer.Argument(metavar="ID")], as_json: Json = False) -> None:
    """Show one dead letter: params and history of a job, or the bytes of a message."""
    with _opened() as (_, dead):
        letter = dead.get(letter_id)
        if as_json:
            print_json(_as_json(letter))
            return
        rows: list[tuple[str, Any]] = [
            ("given up", shown_time(letter.at)),
            ("queue", letter.queue),
            ("code", letter.code),
            ("cause", letter.message),
        ]
        if letter.job is not None:
            rows.append(("params", letter.job.params))
        if letter.raw is not None:
            rows += [("size", f"{letter.size} bytes"), ("bytes", letter.raw)]
        rows += [
            (shown_time(e.at), f"{e.state} (attempt {e.attempt}) {e.code}") for e in letter.history
        ]
        print_table(("", ""), rows)


@app.command("replay")
def replay_(ids: Ids = None, code: Code = None, every: All = False, as_json: Json = False) -> None:
    """Submit dead jobs again as new ones; put messages back into their queue."""
    with _opened() as (client, dead):
        done: dict[str, str | None] = {}
        problems: list[CrossmodalError] = []
        for letter in _chosen(dead, ids, code, every):
            try:
                done[letter.id] = client.run(replay(client.calls, dead.calls, letter))
            except (InvalidParams, ModelBroken, QueueFull) as e:  # the others can be replayed
                problems.append(e)
        if as_json:
            print_json(done)
        elif not done and not problems:
            say("no dead letters to replay")
        for letter_id, job_id in () if as_json else done.items():
            say(f"{letter_id} -> {job_id or 'its queue'}")
        for problem in problems:
            print_error(problem)
        if problems:
            raise typer.Exit(FAILED)


@app.command()
def drop(ids: Ids = None, code: Code = None, every: All = False, as_json: Json = False) -> None:
    """Remove dead letters from the list; a job's record stays until its retention ends."""
    with _opened() as (_, dead):
        dropped = [letter.id for letter in _chosen(dead, ids, code, every)]
        for letter_id in dropped:
            dead.drop(letter_id)
        if as_json:
            print_json(dropped)
        else:
            say(f"dropped {len(dropped)}")


def _chosen(
    dead: Letters, ids: list[str] | None, code: str | None, every: bool
) -> list[DeadLetter]:
    if (bool(ids), code is not None, every).count(True) != 1:
        raise InvalidParams("give one or more IDs, or --code CODE, or --all")
    return [dead.get(i) for i in ids] if ids else list(dead.list(code))


def _as_json(letter: DeadLetter) -> dict[str, Any]:
    shown = letter.model_dump(mode="json", exclude={"raw"})
    return shown | {"raw": letter.raw.decode(errors="replace") if letter.raw is not None else None}
