from types import SimpleNamespace

from crossmodal.local.flowerconfig import format_task
from tests.at_once import at_once


@at_once(
    "kwargs, shown",
    [
        ("{'prompt': 'a circle', 'seed': 1}", "{'prompt': 'a circle', 'seed': 1}"),
        (repr({"prompt": "x" * 100, "seed": 1}), "{'prompt': '" + "x" * 80 + "…', 'seed': 1}"),
        (repr({"prompt": "it's " * 40}), "{'prompt': \"" + ("it's " * 40)[:80] + '…"}'),
        (repr({"prompt": "x" * 9_999}), "{'prompt': '" + "x" * 80 + "…'"),
        ("x" * 500, "x" * 239 + "…"),
        ("", ""),
        (None, None),
    ],
)
def test_a_long_prompt_is_shortened(kwargs: str | None, shown: str | None) -> None:
    task = SimpleNamespace(kwargs=kwargs)
    assert format_task(task).kwargs == shown
