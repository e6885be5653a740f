"""Values that notebooks show as more than their text, where who made them has said how."""

from collections.abc import Callable
from typing import Any, Self

Html = Callable[[Any], str | None]
_HOW = "_shown_by"


class _Nothing:
    """How a copy is shown that was pickled: as its text."""

    def __call__(self, _: Any) -> None: ...


class _ShownBy:
    """How a value is shown. It is no part of the value: not compared, not sent to another."""

    def __init__(self, html: Html) -> None:
        self._html = html

    def __call__(self, value: Any) -> str | None:
        return self._html(value)

    def __reduce__(self) -> tuple[type[_Nothing], tuple[()]]:
        return _Nothing, ()


class Shown:
    """A value that has its own HTML in notebooks."""

    def shown_by(self, html: Html) -> Self:
        """The same value, of which `html` makes what notebooks show."""
        self.__dict__[_HOW] = _ShownBy(html)
        return self

    def _repr_html_(self) -> str | None:
        """What a notebook shows; None where that is the text. Never raises."""
        how = self.__dict__.get(_HOW)
        return None if how is None else how(self)
