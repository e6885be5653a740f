"""The report of a storm."""

import os
import statistics
from collections import Counter
from typing import TYPE_CHECKING

from crossmodal.jobs.record import JobState
from tests.chaos.audit import Audit
from tests.chaos.faults import FAULTS

if TYPE_CHECKING:
    from tests.chaos.storm import Storm


def report(storm: "Storm", audit: Audit, breaches: list[str]) -> str:
    """Return the report of what happened, as text."""
    lines = [
        f"seed {storm.seed}, {storm.minutes:g} minutes, {os.cpu_count()} cores",
        "",
        "| fault | times | recovery, median (s) | max (s) |",
        "|---|--:|--:|--:|",
    ]
    for name in FAULTS:
        took = storm.recoveries[name]
        shown = f"{statistics.median(took):.1f} | {max(took):.1f}" if took else "- | -"
        lines.append(f"| {name} | {storm.accepted.counts[name]} | {shown} |")
    attempts = Counter(job.attempt for job in audit.records.values())
    poison = len(storm.accepted.poison)
    traffic, callers = storm.traffic, storm.callers
    others = {k: v for k, v in storm.accepted.counts.items() if k not in FAULTS and v}
    failed = Counter(  # a job that was put back and then canceled has a failure too
        job.failure.code
        for job in audit.records.values()
        if job.failure is not None and job.state is JobState.FAILED
    )
    lines += [
        "",
        f"jobs accepted: {len(storm.accepted.jobs)}, {poison} of them poison",
        f"states: {', '.join(f'{n} {state}' for state, n in sorted(audit.states.items()))}",
        f"attempts: {', '.join(f'{n} × {a}' for a, n in sorted(attempts.items()))}",
        f"besides: {', '.join(f'{n} {what}' for what, n in sorted(others.items()))}",
        f"killed in every attempt, and so failed: {len(audit.struck_down)}",
        f"failed: {', '.join(f'{n} × {code}' for code, n in sorted(failed.items()))}",
        f"bulk: {len(traffic.bulk)} batches; over HTTP with two keys: {len(callers.jobs)} jobs, "
        f"{len(callers.batches)} batches; webhooks: {len(callers.receiver.told)} posts",
        f"plain messages: {len(storm.accepted.plain)}, lost: {len(audit.lost_plain)}",
        f"models loaded: {storm.world.loads()} times, "
        f"given up for others: {storm.world.switches()} times",
        f"garbage: {storm.accepted.garbage} sent, {audit.set_aside} set aside",
        f"breaches: {len(breaches)}",
        *breaches[:50],
    ]
    return "\n".join(lines)
