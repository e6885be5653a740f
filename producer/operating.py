"""Calls for operators: pause and resume queues, cancel many jobs at once."""

from crossmodal.errors import InvalidParams, QueueNotFound, quoted
from crossmodal.jobs.calls import Steps, call
from crossmodal.jobs.cancel_all import ACTIVE, CancelAll
from crossmodal.jobs.record import JobState, QueueStatus
from crossmodal.kinds.queue import Queue
from crossmodal.kinds.task import Task
from crossmodal.unknown import nearest, shown
from producer.checks import check_one_of, check_task, check_text
from producer.following import Following


class Operating(Following):
    """Calls about whole queues."""

    @call
    def pause(self, queue: str) -> Steps[QueueStatus]:
        """Pause a queue: running jobs finish, waiting ones stay.

        It accepts new jobs unless the setting `paused_queues_accept` is false. Raises
        `QueueNotFound`.
        """
        yield from self.ledger.pause((yield from self._checked_queue(queue)))
        return (yield from self._now(queue))

    @call
    def resume(self, queue: str) -> Steps[QueueStatus]:
        """Resume a paused queue. Raises `QueueNotFound`."""
        yield from self.ledger.resume((yield from self._checked_queue(queue)))
        return (yield from self._now(queue))

    @call
    def cancel_all(
        self,
        owner: str | None = "",
        *,
        task: Task | str | None = None,
        model: str | None = None,
        state: JobState | str | None = None,
    ) -> Steps[int]:
        """Cancel an owner's jobs that have not ended, or all owners' for None; returns how many.

        A `task` without `.bulk` stands for both of its lanes. A job that names no model counts as
        one of the default `model`. Jobs submitted meanwhile stay.
        Raises `InvalidParams` or `ModelNotFound`.
        """
        owner = None if owner is None else check_text("owner", owner)
        states = [check_one_of("state", JobState, state)] if state is not None else ACTIVE
        if not set(states) <= set(ACTIVE):
            raise InvalidParams(f"state is {shown(state)}: give one of {', '.join(ACTIVE)}")
        queues = yield from self._queues_of(None if task is None else check_task(task), model)
        calls = CancelAll(self.settings)
        return (yield from calls.cancel_all([str(queue) for queue in queues], owner, states))

    @call
    def _queues_of(self, task: Task | None, model: str | None) -> Steps[list[Queue]]:
        known = yield from self.models(max_age_s=0)
        name = None if model is None else known.any_named(check_text("model", model)).name

        def fits(queue: Queue) -> bool:
            default = known.default(queue.task.kind)
            of = queue.model or (default.name if default else None)
            return name in (None, of) and task in (None, queue.task, queue.task.of_items)

        return list(filter(fits, known.queues))

    @call
    def _now(self, queue: str) -> Steps[QueueStatus]:
        """Return a queue's status after a change, bypassing older cached models."""
        yield from self.models(max_age_s=0)
        return (yield from self.ledger.queue(queue))

    @call
    def _checked_queue(self, name: str) -> Steps[str]:
        """Return the name. Raises `QueueNotFound` for an unknown queue."""
        known = [str(queue) for queue in (yield from self.models(max_age_s=0)).queues]
        if check_text("queue", name) not in known:
            near = nearest(name, known)
            remedy = f"did you mean {near!r}?" if near else f"there are {', '.join(known)}"
            raise QueueNotFound(f"no queue is called {quoted(name[:100])}: {remedy}")
        return name
