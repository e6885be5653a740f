"""The `crossmodal` command: a table of subcommands, each imported only when used."""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.metadata import version
from typing import Any

import typer

from crossmodal.console import (
    begin,
    errors_to_exit_status,
    print_table,
    print_what_is_no_text,
    refuse,
    run,
    say,
)
from crossmodal.extras import DISTRIBUTION, require
from crossmodal.kinds.registry import kinds
from crossmodal.machine import allow_many_files, have_home
from crossmodal.processes import treat_sigterm_as_interrupt
from crossmodal.shadowing import check_not_shadowed

# name -> (module:attribute, help)
_SERVE = {
    "up": ("crossmodal.local.cli:up", "Run queue, worker and Flower on this machine"),
    "demo": ("producer.commands.demo:demo", "Run the main job once, on a private, temporary stack"),
    "worker": ("worker.cli:worker", "Serve jobs on this machine's devices"),
    "flower": ("worker.celery.command:flower", "Run Flower, a monitor of workers and jobs"),
    "autoscale": ("worker.autoscale.cli:autoscale", "Start and stop workers as the queues need"),
}
_USE = {
    "status": ("producer.commands.follow:status", "Show the state of a job"),
    "wait": ("producer.commands.follow:wait", "Wait until jobs have ended"),
    "result": ("producer.commands.follow:result", "Wait for a job, and show or save its result"),
    "cancel": (
        "producer.commands.follow:cancel",
        "Cancel a job that has not ended, or all of them",
    ),
    "retry": ("producer.commands.follow:retry", "Submit a failed job again, as a new job"),
    "delete": ("producer.commands.follow:delete", "Delete an ended job and its output"),
    "jobs": ("producer.commands.follow:jobs", "List the latest jobs, by state and kind"),
    "queue": (
        "producer.commands.follow:queue",
        "Show depth, running jobs and workers of each queue",
    ),
    "pause": (
        "producer.commands.follow:pause",
        "Pause a queue: running jobs finish, waiting ones stay",
    ),
    "resume": ("producer.commands.follow:resume", "Resume a paused queue"),
    "gateway": ("producer.gateway.cli:gateway", "Serve jobs over HTTP, with a page at /"),
    "mcp": ("producer.mcp.cli:mcp", "Serve jobs to agents as tools (MCP)"),
    "keys": ("producer.commands.keys:app", "API keys of the gateway: create, list, revoke"),
    "background": (
        "worker.background.cli:background",
        "Send webhooks, and run batches of the HTTP API",
    ),
    "webhooks": ("worker.background.cli:background", "The same as `background`"),
    "batch": (
        "producer.commands.batch:app",
        "Run many requests at once, from a file of JSON lines",
    ),
    "dead": ("producer.commands.dead:app", "Dead letters: list, show, replay, drop"),
    "redis-acl": ("crossmodal.acl_cli:redis_acl", "Print Redis ACL users with least privileges"),
    "gc": ("producer.commands.gc:gc", "Remove blobs that no record refers to"),
    "health": ("worker.health:health", "Check whether this machine's workers are live, or ready"),
    "doctor": ("worker.doctor:doctor", "Check what is reachable and configured, with remedies"),
    "settings": ("crossmodal.settings_reference:settings", "Show every setting and its value"),
    "models": ("worker.models_cli:app", "Folders of models: show one, check one, pull one"),
    "train": ("crossmodal.training.cli:train", "Train a bundle"),
    "evaluate": (
        "crossmodal.training.evaluating:evaluate",
        "Measure a bundle by an independent judge",
    ),
}
EXTRAS = {  # the extra that a command needs, whatever its options
    "up": "worker",
    "demo": "worker",
    "worker": "worker",
    "autoscale": "worker",
    "flower": "monitor",
    "gateway": "gateway",
    "mcp": "mcp",
    "background": "webhooks",
    "webhooks": "webhooks",
    "models": "worker",
    "train": "train",
    "evaluate": "train",
}
NEEDED = {"crossmodal": (), "producer": ("producer",), "worker": ("worker", "celery")}
# These run code of all packages, in child processes with the same Python path.
RUN_ALL = ("up", "demo", "background", "webhooks")
HELP = ("-h", "--help", "help")


@cache
def commands() -> Mapping[str, tuple[str, str]]:
    """Return all subcommands, one per kind included. Raises `InvalidSetting`."""
    of_kinds = {
        name: ("producer.commands.submit:commands", kind.about) for name, kind in kinds().items()
    }
    return {**_SERVE, **of_kinds, **_USE}


def main() -> None:
    """Run the subcommand named on the command line."""
    print_what_is_no_text()
    have_home()
    allow_many_files()
    if os.getpid() == 1:  # in a container, where an unhandled signal is ignored
        treat_sigterm_as_interrupt()
    name, *args = sys.argv[1:] or ["--help"]
    begin(args)
    if name in ("-V", "--version", "version"):
        say(f"crossmodal {version(DISTRIBUTION)}")
        return
    with _errors_end():
        is_known = name in commands()
    if name in HELP:
        _help()
    elif is_known:
        _run(name, args)
    else:
        refuse(f"there is no command {name!r}: `crossmodal --help` lists them")


def _help() -> None:
    say(
        "Usage: crossmodal COMMAND [OPTIONS]\n\n"
        "Text-to-image and image-to-text as background jobs.\n"
    )
    print_table(("command", ""), [(name, about) for name, (_, about) in commands().items()])
    say("\ncrossmodal COMMAND --help says more.")


def _run(name: str, args: list[str]) -> None:
    with _errors_end():
        _check_packages(name)
        if "--help" not in args:
            _check_extra(name)
        command = _loaded(name)
    run(command, args, f"crossmodal {name}")


@contextmanager
def _errors_end() -> Iterator[None]:
    try:
        with errors_to_exit_status():
            yield
    except typer.Exit as e:
        raise SystemExit(e.exit_code) from e


def _check_packages(name: str) -> None:
    """Raise `PackageShadowed` if another module shadows a package that the command needs."""
    home = commands()[name][0].partition(".")[0]
    needed = sum(NEEDED.values(), ()) if name in RUN_ALL else NEEDED[home]
    check_not_shadowed(*needed)


def _check_extra(name: str) -> None:
    """Raise `ExtraMissing`, before the command starts anything, if its extra is missing."""
    if name in EXTRAS:
        require(EXTRAS[name], f"crossmodal {name}")


def _loaded(name: str) -> Any:
    try:
        return load(name)
    except ModuleNotFoundError:
        _check_extra(name)  # some commands need their extra even for --help
        raise  # a bug, not a missing extra


def load(name: str) -> Any:
    """Import and return the command of a name in the table."""
    module, _, attribute = commands()[name][0].partition(":")
    found = getattr(import_module(module), attribute)
    if isinstance(found, Mapping):  # the commands of kinds
        found = found[name]
    if not isinstance(found, typer.Typer):
        found, function = typer.Typer(add_completion=False), found
        found.command()(function)
    return typer.main.get_command(found)


if __name__ == "__main__":
    main()
