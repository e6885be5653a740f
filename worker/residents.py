"""The models loaded on a worker's device, switched according to the jobs that wait.

The worker chooses the models; its supervisor starts and ends their processes. Before a model is
unloaded, no more of its jobs are taken and the running ones end. Before one is loaded, the worker
claims it in Redis, so that only one of several workers loads it.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from crossmodal.errors import BrokerUnavailable, ModelBroken
from crossmodal.jobs.calls import Steps, call, redis
from crossmodal.jobs.leases import Leases
from crossmodal.jobs.ledger import JobLedger
from crossmodal.jobs.models import KnownModels, Models
from crossmodal.jobs.names import loading_key, messages_key, queue_key
from crossmodal.jobs.record import Failure, ModelInfo, QueueStatus, WorkerInfo
from crossmodal.jobs.runners import AsyncRunner
from crossmodal.jobs.workers import Workers
from crossmodal.settings import Settings
from worker.notices import Lasting
from worker.serving import ServedModel, Serving
from worker.switch import Resident, Switch, choose

log = logging.getLogger(__name__)

LOOK_S = 0.5
ASK_S = 1.0  # interval of the queries for waiting jobs
REFUSE_S = 5.0
AT_ONCE = 100  # jobs of a queue that are refused before those of other queues
SETTLE_S = 1.5  # time for the last messages of a queue that is no longer consumed


@dataclass
class State:
    """The state of a model on this device; times are by the monotonic clock."""

    model: ServedModel
    told: ModelInfo
    """What its host reported last; the host may have ended since."""
    wanted_at: float | None = None
    loaded_at: float | None = None
    took_s: float = 0.0
    """Seconds from `wanted_at` until it was loaded, including the end of other hosts."""
    busy_at: float = field(default_factory=time.monotonic)
    leaving_since: float | None = None
    messages_since: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether its jobs are taken."""
        return self.loaded_at is not None and self.leaving_since is None

    def waited_s(self, messages: int) -> float:
        """Return for how many seconds there have been messages."""
        if not messages:
            self.messages_since = None
            return 0.0
        self.messages_since = self.messages_since or time.monotonic()
        return time.monotonic() - self.messages_since

    def note_loaded(self, now: float) -> None:
        self.loaded_at = self.busy_at = now
        self.took_s = 0.0 if self.wanted_at is None else now - self.wanted_at

    def note_gone(self) -> None:
        self.wanted_at = self.loaded_at = self.leaving_since = None

    def hear(self) -> None:
        """Store what its host reports, if there is one."""
        if (said := self.model.said()) != self.model.info:
            self.told = said


class Residents:
    """The models of a worker; one per worker, on the event loop of its jobs.

    `in_hand` counts the messages of a model that the worker holds.
    """

    def __init__(
        self,
        settings: Settings,
        serving: Serving,
        worker: str,
        in_hand: Callable[[str], int],
        runner: AsyncRunner,
    ) -> None:
        self._settings = settings
        self._serving = serving
        self._worker = worker
        self._in_hand = in_hand
        self._redis = runner
        self._ledger = JobLedger(settings)
        self._models = Models(settings)
        self._leases = Leases(settings)
        self._workers = Workers(settings)
        self._states = {m.name: State(m, m.said()) for m in serving.read_models()}
        self._wanted = serving.wanted
        self._next: Switch | None = None
        self._paused: frozenset[str] = frozenset()
        self._paused_at = 0.0
        self._asked_at = 0.0
        self._refused_at = 0.0
        self.look()

    # -- state ----------------------------------------------------------------------------

    @property
    def device(self) -> str:
        """The name of the device."""
        return self._serving.device

    @property
    def all_queues(self) -> list[str]:
        """The queues of all models, loaded or not."""
        return sorted(self._queues(lambda state: True))

    @property
    def taken(self) -> frozenset[str]:
        """The queues whose jobs are taken; safe to read from any thread."""
        return self._queues(lambda state: state.is_open) - self._paused

    @property
    def run(self) -> frozenset[str]:
        """The queues whose jobs are run, also those of models about to be unloaded."""
        return self._queues(lambda state: state.loaded_at is not None)

    @property
    def loaded(self) -> list[ModelInfo]:
        """The info of loaded models, the default one first."""
        return [state.told for state in self._states.values() if state.is_open]

    @property
    def loading(self) -> list[str]:
        """The models that are being loaded, or are next."""
        coming = [name for name in self._wanted if self._states[name].loaded_at is None]
        return sorted({*coming, *([self._next.load] if self._next else [])} - set(self.failures))

    @property
    def unloaded(self) -> list[str]:
        """The models that may be loaded in place of others."""
        others = self._states.keys() - self._wanted - self.failures.keys() - set(self.loading)
        return sorted(others)

    @property
    def failures(self) -> dict[str, Failure]:
        """The failures of models that cannot be loaded, by name."""
        found = {name: state.model.failure for name, state in self._states.items()}
        return {name: failure for name, failure in found.items() if failure is not None}

    @property
    def models(self) -> list[ModelInfo]:
        """The info of all models."""
        return [state.told for state in self._states.values()]

    def _queues(self, fits: Callable[[State], bool]) -> frozenset[str]:
        return frozenset(q for s in self._states.values() if fits(s) for q in s.model.queues)

    # -- the loop -------------------------------------------------------------------------

    async def keep(self, on_look: Callable[[], None], drains: Callable[[], bool]) -> None:
        """Poll forever. A draining worker switches no model, and renews no claim on one."""
        outage = Lasting(log, "models are not switched for now: %s", "models are switched again")
        while True:
            try:
                self.look()
                on_look()
                if drains():
                    self._stay()
                else:
                    await self._go_on()
                    on_look()
                    outage.note_success()
            except BrokerUnavailable as e:
                outage.warn(e)
            except Exception:  # keep polling: else no model would be switched again
                log.exception("internal error in switching models")
            await asyncio.sleep(LOOK_S)

    def look(self) -> None:
        """Update the state of all models."""
        now = time.monotonic()
        broken = self.failures
        for name, state in self._states.items():
            state.hear()
            if name not in self._wanted or name in broken:
                state.note_gone()
            elif state.loaded_at is None and state.model.is_loaded:
                log.info("the model %s is loaded", name)
                state.note_loaded(now)
            if self._in_hand(name):
                state.busy_at = now

    async def _go_on(self) -> None:
        if time.monotonic() - self._paused_at >= ASK_S:
            self._paused_at = time.monotonic()
            self._paused = await self._redis.run(self._ledger.paused())
        if self._next is not None:
            await self._prepare(self._next)
        elif self._has_choice and time.monotonic() - self._asked_at >= ASK_S:
            self._asked_at = time.monotonic()
            await self._choose()
        await self._refuse_broken()

    @property
    def _has_choice(self) -> bool:
        return any(
            n not in self._wanted and s.model.failure is None for n, s in self._states.items()
        )

    async def _choose(self) -> None:
        names = list(self._states)
        known, figures = await self._redis.run(self._figures(names))
        for name in names:  # what another worker, or an earlier one, has measured
            self._states[name].told = self._states[name].told.completed(known.get(name))
        residents = [self._resident(name, *figures[name], known.workers) for name in names]
        alive = [one for one in residents if one.name not in self.failures]
        while switch := choose(alive, self._serving.room, self._settings.switch_after_s):
            if await self._redis.run(self._claim(switch.load)):
                self._begin(switch)
                return
            # Another worker loads it, or has lately: consider the next model.
            alive = [replace(r, is_coming=r.is_coming or r.name == switch.load) for r in alive]

    def _begin(self, switch: Switch) -> None:
        others = f" in place of {', '.join(switch.give_up)}" if switch.give_up else ""
        log.info("loading the model %s%s", switch.load, others)
        self._next = switch
        for name in switch.give_up:
            self._states[name].leaving_since = time.monotonic()

    async def _prepare(self, switch: Switch) -> None:
        """Want the next model once those that it replaces have no messages left."""
        if not await self._redis.run(self._claim(switch.load)):  # the claim has expired
            self._stay()
            return
        if not all(self._has_left(self._states[name]) for name in switch.give_up):
            return
        self._wanted = (self._wanted - set(switch.give_up)) | {switch.load}
        self._serving.want(self._wanted)
        self._states[switch.load].wanted_at = time.monotonic()
        self._next = None
        self.look()

    def _stay(self) -> None:
        """Cancel the switch: keep the loaded models, and take their jobs again."""
        self._next = None
        for state in self._states.values():
            state.leaving_since = None

    def _has_left(self, state: State) -> bool:
        since = state.leaving_since or 0.0
        return time.monotonic() - since >= SETTLE_S and not self._in_hand(state.model.name)

    def _resident(
        self,
        name: str,
        figures: Sequence[QueueStatus],
        messages: int,
        workers: Sequence[WorkerInfo],
    ) -> Resident:
        """Return what `choose` must know of a model; jobs in paused queues do not count."""
        state, now = self._states[name], time.monotonic()
        others = [worker for worker in workers if worker.name != self._worker]
        return Resident(
            name,
            state.told.peak_bytes or state.model.needs,
            is_wanted=name in self._wanted,
            is_loaded=state.loaded_at is not None,
            is_pinned=state.model.is_pinned,
            is_elsewhere=any(name in one.models for one in others),
            is_coming=any(name in one.loading for one in others),
            waiting=max(sum(one.depth for one in figures), messages),
            oldest_wait_s=max([state.waited_s(messages), *(one.oldest_wait_s for one in figures)]),
            in_hand=self._in_hand(name),
            idle_s=now - state.busy_at,
            stayed_s=now - (state.loaded_at or now),
            load_s=max(state.told.load_s or 0.0, state.took_s),
        )

    async def _refuse_broken(self) -> None:
        """Fail the jobs of models that no worker can load: they would wait forever."""
        if not self.failures or time.monotonic() - self._refused_at < REFUSE_S:
            return
        self._refused_at = time.monotonic()
        workers = await self._redis.run(self._workers.recent())
        served = {name for w in workers for name in (*w.models, *w.loading, *w.unloaded)}
        for name, failure in self.failures.items():
            if name not in served:
                error = ModelBroken(f"the model {name} cannot be loaded: {failure.message}")
                for queue in self._states[name].model.queues:
                    await self._redis.run(self._refuse_all(queue, Failure.of(error)))

    # -- calls ----------------------------------------------------------------------------

    @call
    def _figures(
        self, names: Sequence[str]
    ) -> Steps[tuple[KnownModels, dict[str, tuple[list[QueueStatus], int]]]]:
        """Return the known models and workers, and each model's queue figures and message count.

        Messages are counted because those of plain Celery have no record yet.
        """
        known = yield from self._models.known(max_age_s=0)
        queues = {name: self._states[name].model.queues for name in names}
        statuses = yield from self._ledger.queues([q for some in queues.values() for q in some])
        open_ = [status for status in statuses if not status.paused]
        lists = [messages_key(self._settings.key_prefix, status.queue) for status in open_]
        lengths = yield [redis.llen(key) for key in lists]
        found = {one.queue: (one, length) for one, length in zip(open_, lengths, strict=True)}
        waiting = {name: [found[q] for q in some if q in found] for name, some in queues.items()}
        return known, {
            name: ([status for status, _ in some], sum(length for _, length in some))
            for name, some in waiting.items()
        }

    @call
    def _refuse_all(self, queue: str, failure: Failure) -> Steps[None]:
        key = queue_key(self._settings.key_prefix, queue, "queued")
        for job_id in (yield redis.zrange(key, 0, AT_ONCE - 1)):
            yield from self._ledger.refuse(job_id, failure)

    @call
    def _claim(self, name: str) -> Steps[bool]:
        """Claim a model for loading, or renew the claim, for a lease; return whether it is held."""
        key = loading_key(self._settings.key_prefix, name)
        return (yield from self._leases.hold(key, self._worker))
