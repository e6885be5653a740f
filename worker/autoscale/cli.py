"""`crossmodal autoscale`: runs as many workers on this machine as its queues need."""

from contextlib import closing
from dataclasses import asdict
from typing import Annotated

import click
import typer

from crossmodal import cli, logs
from crossmodal.console import Json, errors_to_exit_status, print_json, print_table, say
from crossmodal.errors import InvalidSetting
from crossmodal.settings import Settings, load_settings
from worker.autoscale.demand import Demand
from worker.autoscale.fleet import Fleet
from worker.autoscale.metrics import SCALER
from worker.autoscale.policy import Look, Policy, decide
from worker.autoscale.scaler import Scaler, claim
from worker.cli import chosen
from worker.crews import Crew, crews_of
from worker.devices import Device, parse_devices
from worker.metrics_server import serve

NOT_AFTER = ("devices", "metrics_port", "ready_file")  # options that this command sets itself


Min = Annotated[int, typer.Option("--min", min=0, help="Min workers, kept even without jobs.")]
Max = Annotated[
    int | None, typer.Option("--max", min=1, help="Max workers. (one per GPU; 1 on a CPU)")
]
TargetWait = Annotated[
    float, typer.Option("--target-wait", min=0.1, help="Seconds that a job may wait.")
]
BulkTargetWait = Annotated[
    float, typer.Option("--bulk-target-wait", min=0.1, help="The same for a bulk message.")
]
Interval = Annotated[
    float, typer.Option("--interval", min=0.2, help="Seconds between two decisions.")
]
Cooldown = Annotated[
    float,
    typer.Option("--cooldown", min=1, help="Seconds of lower demand before workers are stopped."),
]
Step = Annotated[int, typer.Option(min=1, help="Max workers started by one decision.")]
Devices = Annotated[
    str, typer.Option(help="auto, cpu, or GPUs such as cuda:0,cuda:1; worker k uses the k-th.")
]
MetricsPort = Annotated[
    int | None, typer.Option(help="Serve metrics at this port, those of worker k at port + 1 + k.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the decision for the current queues, and exit.")
]
WorkerOptions = Annotated[
    list[str] | None, typer.Argument(metavar="-- OPTION", help="Options of `crossmodal worker`.")
]


def autoscale(
    least: Min = 0,
    most: Max = None,
    target_wait_s: TargetWait = 5.0,
    bulk_target_wait_s: BulkTargetWait = 60.0,
    interval_s: Interval = 2.0,
    cooldown_s: Cooldown = 60.0,
    step: Step = 4,
    devices: Devices = "auto",
    metrics_port: MetricsPort = None,
    dry_run: DryRun = False,
    as_json: Json = False,
    worker_options: WorkerOptions = None,
) -> None:
    """Start and stop workers on this machine, so that no job waits longer than it should."""
    with errors_to_exit_status():
        settings = load_settings(metrics_port=metrics_port)
        logs.configure(settings, process="scaler")
        places = _places(parse_devices(devices), most)
        policy = Policy(least, len(places), cooldown_s, step)
        if least > policy.most:
            raise InvalidSetting(f"--min {least} is more than --max {policy.most}")
        options = worker_options or []
        crews = _crews(settings, options, places[0])
        with closing(Demand(settings, crews, target_wait_s, bulk_target_wait_s)) as demand:
            if dry_run:
                _print(policy, demand.look(), as_json)
                return
            folder, lock = claim(settings.run_dir)
            with lock:
                if settings.metrics_port:
                    serve(SCALER, settings.metrics_address, settings.metrics_port)
                fleet = Fleet(settings, places, folder, options)
                status = Scaler(settings, policy, demand, fleet, interval_s).run()
        raise typer.Exit(status)


def _places(devices: list[Device], most: int | None) -> list[Device]:
    """Return the device of each worker: each GPU has one worker, a CPU is shared."""
    if len({device.torch_name for device in devices}) > 1:
        raise InvalidSetting("--devices: give GPUs only, or cpu only: the two cannot be mixed")
    if devices[0].name == "cpu":
        return devices[:1] * (most or 1)
    if most is not None and most > len(devices):
        raise InvalidSetting(
            f"--max {most}: there are {len(devices)} devices, and each has one worker"
        )
    return devices[:most]


def _crews(settings: Settings, options: list[str], device: Device) -> list[Crew]:
    """Return the crews of each worker, according to the workers' options."""
    context = _parse(options)
    for name in NOT_AFTER:
        source = context.get_parameter_source(name)
        if source is not None and source.name != "DEFAULT":
            option = "--" + name.replace("_", "-")
            raise InvalidSetting(f"{option} cannot be among the workers' options")
    given = context.params
    return crews_of(
        settings,
        device.torch_name,
        chosen(settings, given["models"]),
        given["queues"],
        given["concurrency"],
        given["bulk_concurrency"],
    )


def _parse(options: list[str]) -> click.Context:
    """Parse the workers' options. Raises `click.UsageError` as `crossmodal worker` does."""
    context: click.Context = cli.load("worker").make_context("crossmodal worker", list(options))
    return context


def _print(policy: Policy, look: Look, as_json: bool) -> None:
    """Print how many workers this look alone needs, and why."""
    decision = decide(policy, [look], policy.most)
    rows = [
        asdict(load)
        | {"job_s": load.job_s, "jobs_per_worker": load.jobs_per_worker, "need": load.need}
        for load in look.loads
    ]
    if as_json:
        print_json({"wanted": decision.wanted, "need": decision.need, "queues": rows})
        return
    print_table(
        (
            "queue",
            "waiting",
            "running",
            "run (s)",
            "slots",
            "target wait (s)",
            "jobs per worker",
            "workers",
        ),
        [
            (
                r["queue"],
                r["waiting"],
                r["running"],
                r["run_s"],
                r["slots"],
                r["target_wait_s"],
                round(r["jobs_per_worker"], 1),
                round(r["need"], 3),
            )
            for r in rows
        ],
    )
    say(f"wanted: {decision.wanted} ({policy.least} to {policy.most})")
