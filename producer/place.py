"""A job's status in words."""

from crossmodal.jobs.record import JobStatus


def place(status: JobStatus) -> str:
    """Return a status in words: `queued, 3 jobs before it, about 12 s`."""
    words = [str(status.state)]
    if status.position is not None:
        before = status.position
        words.append(f"{before} job{'s' if before > 1 else ''} before it" if before else "next")
    if status.progress is not None:
        words.append(f"step {status.progress.step} of {status.progress.of}")
        words.append(f"about {duration(status.progress.left_s)} left")
    if status.waits_for is not None:
        is_there = status.waits_for.startswith("loading")
        words.append(status.waits_for if is_there else f"waits for {status.waits_for}")
    elif status.estimated_wait_s is not None:
        words.append(f"about {duration(status.estimated_wait_s)}")
    if status.attempt > 1:
        words.append(f"attempt {status.attempt}")
    return ", ".join(words)


def duration(seconds: float) -> str:
    """Return a duration in words: `12 s`, `3 min`, `1.5 h`."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5_400 else f"{seconds / 3_600:.1f} h"
