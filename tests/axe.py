"""Checks of a page's accessibility with axe-core."""

from pathlib import Path
from typing import Any

from playwright.sync_api import Page

from tests.clients.environments import node_with

SERIOUS = ("serious", "critical")
RUN = """async () => {
    const { violations } = await axe.run(document, {resultTypes: ["violations"]});
    const where = (nodes) => nodes.map(({html, failureSummary}) => [html, failureSummary]);
    return violations.map(({id, impact, nodes}) => ({id, impact, where: where(nodes)}));
}"""


def script() -> str:
    """Return axe-core's source; skip the test if the package is not available."""
    return Path(node_with("axe-core"), "node_modules/axe-core/axe.min.js").read_text()


def faults(page: Page, source: str) -> list[dict[str, Any]]:
    """Return the serious faults of a page in its current state, under its own script policy."""
    page.evaluate(source)
    found: list[dict[str, Any]] = page.evaluate(RUN)
    return [fault for fault in found if fault["impact"] in SERIOUS]
