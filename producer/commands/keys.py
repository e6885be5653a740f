"""`crossmodal keys`: manage the API keys of the HTTP gateway."""

from typing import Annotated

import typer

from crossmodal.console import Json, errors_to_exit_status, print_json, print_table, say, shown_time
from producer.client import CommandClient

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Manage the API keys of the HTTP gateway."
)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    operator: Annotated[
        bool, typer.Option("--operator", help="Also sees metrics and all dead letters.")
    ] = False,
    per_second: Annotated[float, typer.Option(help="Calls per second.")] = 50.0,
    burst: Annotated[int, typer.Option(help="Calls in a burst.")] = 100,
    max_queued: Annotated[int, typer.Option(help="Max waiting jobs of each kind.")] = 5_000,
    as_json: Json = False,
) -> None:
    """Create a key. It is shown only once: Redis holds only its digest."""
    with errors_to_exit_status(), CommandClient() as client:
        key, token = client.keys.create(
            name, is_operator=operator, per_second=per_second, burst=burst, max_queued=max_queued
        )
        secret = client.keys.webhook_secret(key.id)
        if as_json:
            print_json(key.model_dump() | {"token": token, "webhook_secret": secret})
            return
        print_table(("", ""), [("id", key.id), ("key", token), ("webhooks", secret)])


@app.command("list")
def list_(as_json: Json = False) -> None:
    """List all keys, without their secrets."""
    with errors_to_exit_status(), CommandClient() as client:
        keys = list(client.keys.list())
        if as_json:
            print_json([key.model_dump() for key in keys])
            return
        print_table(
            ("id", "name", "created", "revoked", "operator", "a second", "may wait"),
            [
                (
                    k.id,
                    k.name,
                    shown_time(k.created_at),
                    k.revoked_at and shown_time(k.revoked_at),
                    "yes" if k.is_operator else "",
                    f"{k.per_second:g}",
                    k.max_queued,
                )
                for k in keys
            ],
            "no API keys: `crossmodal keys create NAME` makes one",
        )


@app.command()
def revoke(key_id: Annotated[str, typer.Argument(metavar="ID")], as_json: Json = False) -> None:
    """Revoke a key; its jobs go on."""
    with errors_to_exit_status(), CommandClient() as client:
        key = client.keys.revoke(key_id)
        if as_json:
            print_json(key.model_dump())
        else:
            say(f"{key.id} {key.name} is revoked")
