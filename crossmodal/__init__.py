"""Text-to-image and image-to-text as background jobs: re-exports the names of `producer`.

    from crossmodal import Client

`producer` is imported on first access, so that `import crossmodal` costs next to nothing.
"""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from crossmodal.shadowing import check_not_shadowed, is_the_command

if TYPE_CHECKING:
    from producer import *  # noqa: F403
    from producer import __all__ as __all__
else:

    def __getattr__(name: str) -> Any:
        if name == "__all__":
            return _producer().__all__
        # Python also looks up submodules here before it imports them.
        if not name.startswith("_") and find_spec(f"{__name__}.{name}") is None:
            producer = _producer()
            if name in producer.__all__:
                return getattr(producer, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        own = {name for name in globals() if name.startswith("__")}
        return sorted({*own, *_producer().__all__})

    def _producer() -> Any:
        check_not_shadowed("producer")
        return import_module("producer")


if not is_the_command():
    check_not_shadowed("producer")
