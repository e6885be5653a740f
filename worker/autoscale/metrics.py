"""A scaler's decisions and workers as Prometheus metrics; docs/scaling.md lists them."""

from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics

# The creation time of a counter is of no use: Prometheus detects resets.
disable_created_metrics()  # type: ignore[no-untyped-call]

SCALER = CollectorRegistry(auto_describe=True)

WANTED = Gauge(
    "crossmodal_autoscale_wanted_workers", "Workers that the scaler wants.", registry=SCALER
)
NEEDED = Gauge(
    "crossmodal_autoscale_needed_workers",
    "Workers for the waiting and running jobs within the target wait, before any bounds.",
    registry=SCALER,
)
WORKERS = Gauge(
    "crossmodal_autoscale_workers",
    "Workers of this scaler by state: starting, ready or draining.",
    ["state"],
    registry=SCALER,
)
ENDED = Counter(
    "crossmodal_autoscale_ended_total",
    "Workers that ended: drained, cut_off while they drained, unused (no jobs yet), or crashed.",
    ["how"],
    registry=SCALER,
)
