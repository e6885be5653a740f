"""Copies results into the manual, between two marks, so that they stay current there.

<!-- NAME: made by benchmarks/NAME.py -->
…
<!-- end of NAME -->
"""

import re
from pathlib import Path
from typing import Any

from harness import RESULTS

DOCS = Path(__file__).parents[1] / "docs"


def refresh(page: str, name: str) -> None:
    """Replace the text between the marks of `name` by its results."""
    file = DOCS / page
    lines = (RESULTS / f"{name}.md").read_text().strip().splitlines()
    body = "\n".join(lines[1:]).strip()  # the page has its own headings
    begin, end = f"<!-- {name}: made by benchmarks/{name}.py -->", f"<!-- end of {name} -->"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    text, count = pattern.subn(lambda _: f"{begin}\n{body}\n{end}", file.read_text())
    if count != 1:
        raise SystemExit(f"{file} has {count} places between {begin} and {end}")
    file.write_text(text)


def save_picture(name: str, figure: Any) -> None:
    """Save a matplotlib figure among the manual's pictures."""
    figure.savefig(DOCS / "images" / f"{name}.png", dpi=110, bbox_inches="tight")
