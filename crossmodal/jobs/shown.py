"""Values with their own HTML in notebooks."""

from collections.abc import Callable
from typing import Any, Self

Html = Callable[[Any], str | None]
_HOW = "_shown_by"


class _Nothing:
    """The renderer of an unpickled copy, which has no HTML."""

    def __call__(self, _: Any) -> None: ...


class _ShownBy:
    """The renderer of a value. It is not part of the value: not compared, not pickled."""

    def __init__(self, html: Html) -> None:
        self._html = html

    def __call__(self, value: Any) -> str | None:
        return self._html(value)

    def __reduce__(self) -> tuple[type[_Nothing], tuple[()]]:
        return _Nothing, ()


class Shown:
    """A value with its own HTML in notebooks."""

    def shown_by(self, html: Html) -> Self:
        """Set the function that renders this value in notebooks; return the value."""
        self.__dict__[_HOW] = _ShownBy(html)
        return self

    def _repr_html_(self) -> str | None:
        """Return the HTML for a notebook, None to show the text. Never raises."""
        how = self.__dict__.get(_HOW)
        return None if how is None else how(self)
