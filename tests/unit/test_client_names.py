"""What the client's package exports, and that both clients are the same but for `await`."""

import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any, get_args, get_type_hints

import pytest

import producer
from crossmodal import errors
from producer import AsyncClient, AsyncJobHandle, Client, JobHandle

# Of the gateway, commands, workers, training and fakes: no call of a real client raises these.
OF_OTHERS = {
    "WaitTooLong",
    "NotSupported",
    "BodyTooLarge",
    "BodyTooSlow",
    "Overloaded",
    "UrlRefused",
    "FetchFailed",
    "Forbidden",
    "InvalidMessage",
    "UnknownTask",
    "NotFaked",
    "ExtraMissing",
    "Interrupted",
    "PackageShadowed",
    "InvalidBundle",
    "BundleNotFound",
    "InvalidData",
    "TrainingError",
    "TrainingDiverged",
    "TrainingStopped",
    "CheckpointMismatch",
    "OutputNotWritable",
    "ImageDecoderCrashed",
    "ModelHostError",
    "ModelHostUnavailable",
    "ModelHostCrashed",
    "TimedOut",
    "GpuOutOfMemory",
    "InferenceFailed",
    "InvalidModel",
    "ModelHubError",
    "ModelHubUnavailable",
    "ModelHubRefused",
    "RepositoryNotFound",
    "ModelDamaged",
}


def methods(kind: type) -> dict[str, Any]:
    found = {name: f for name, f in vars(kind).items() if inspect.isfunction(f)}
    return {name: f for name, f in found.items() if not name.startswith("_")}


def test_the_exported_names_are_these() -> None:
    assert sorted(producer.__all__) == producer.__all__
    public = {name for name, value in vars(producer).items() if not inspect.ismodule(value)}
    assert {name for name in public if not name.startswith("_")} == set(producer.__all__)


def test_every_error_that_a_caller_can_meet_is_exported() -> None:
    kinds = {n for n, k in vars(errors).items() if inspect.isclass(k) and issubclass(k, Exception)}
    assert kinds - set(producer.__all__) == OF_OTHERS


def test_every_type_in_a_signature_of_the_client_is_exported() -> None:
    def classes(hint: Any) -> set[type]:
        inside = {c for part in get_args(hint) for c in classes(part)}
        return inside | ({hint} if isinstance(hint, type) else set())

    named = {
        found
        for kind in (Client, AsyncClient, JobHandle, AsyncJobHandle)
        for method in methods(kind).values()
        for hint in get_type_hints(method).values()
        for found in classes(hint)
    }
    ours = {c for c in named if c.__module__.partition(".")[0] in ("crossmodal", "producer")}
    protocols = {c for c in ours if getattr(c, "_is_protocol", False)}  # parts of `Picture`
    assert {c.__name__ for c in ours - protocols} <= set(producer.__all__)


def as_awaited(hint: Any) -> Any:
    """What the twin of a method returns, of what the method does."""
    if hint is JobHandle:
        return AsyncJobHandle
    if getattr(hint, "__origin__", None) is Iterator:
        [item] = get_args(hint)
        return AsyncIterator[as_awaited(item)]  # type: ignore[misc]
    return hint


@pytest.mark.parametrize(("kind", "twin"), [(Client, AsyncClient), (JobHandle, AsyncJobHandle)])
def test_both_clients_have_the_same_methods(kind: type, twin: type) -> None:
    ours, theirs = methods(kind), methods(twin)
    assert set(theirs) == set(ours)
    for name, method in theirs.items():
        one, other = inspect.signature(ours[name]), inspect.signature(method)
        plain = [[(p.name, p.kind, p.default) for p in s.parameters.values()] for s in (one, other)]
        assert plain[0] == plain[1], name
        hints, others = get_type_hints(ours[name]), get_type_hints(method)
        assert others == hints | {"return": as_awaited(hints["return"])}, name
        assert inspect.iscoroutinefunction(method) or "AsyncIterator" in str(others["return"]), name


def test_help_shows_the_handle_that_is_awaited() -> None:
    assert inspect.signature(AsyncClient.img2txt).return_annotation is AsyncJobHandle
    assert (AsyncClient.img2txt.__doc__ or "").startswith("Upload a picture")


async def misspelt(client: AsyncClient) -> None:
    """For the type checker, which complains of what it need not ignore."""
    await client.txt2img("a circle", sede=7)  # what only a model may have
    await client.txt2img("a circle", seed="7")  # type: ignore[arg-type]
    await client.cancel(5)  # type: ignore[arg-type]
    (await client.job("id")).cancel().state  # type: ignore[attr-defined]  # noqa: B018
