"""Leases that one process has at a time, by Redis's clock: to run a batch job, to load a model."""

from crossmodal.jobs.calls import Script, Steps, call
from crossmodal.settings import Settings


class Leases:
    """Leases of the deployment's lease time; every method returns a call."""

    def __init__(self, settings: Settings) -> None:
        self._prefix = settings.key_prefix
        self._lease_s = settings.lease_s

    @call
    def hold(self, key: str, who: str) -> Steps[bool]:
        """Acquire or renew the lease for `who`; return whether `who` has it."""
        return bool((yield self._script(key, who, "")))

    @call
    def end(self, key: str, who: str) -> Steps[None]:
        """End the lease if `who` has it."""
        yield self._script(key, who, "1")

    def _script(self, key: str, who: str, ends: str) -> Script:
        return Script("hold_lease", (key,), (self._prefix, key, who, self._lease_s, ends))
