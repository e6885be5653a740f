"""How long somebody waits who holds a connection open, and what is answered who would in vain."""

import pytest
from starlette.datastructures import Headers

from producer.gateway.attached import PATIENCE_S, patience_of


@pytest.mark.parametrize(
    ("name", "said", "waits"),
    [
        ("X-Stainless-Read-Timeout", "12.5", 12.5),  # of the SDK for Python
        ("X-Stainless-Timeout", "12", 12.0),  # of that for JavaScript
        ("X-Stainless-Read-Timeout", "NOT_GIVEN", PATIENCE_S),
        ("X-Stainless-Read-Timeout", "nan", PATIENCE_S),
        ("X-Stainless-Timeout", "0", PATIENCE_S),
        ("X-Stainless-Timeout", "-1", PATIENCE_S),
        ("Accept", "60", PATIENCE_S),
    ],
)
def test_who_says_how_long_he_waits_is_believed(name: str, said: str, waits: float) -> None:
    assert patience_of(Headers({name: said})) == waits


def test_no_end_is_no_end() -> None:
    assert patience_of(Headers({"X-Stainless-Read-Timeout": "inf"})) == float("inf")
