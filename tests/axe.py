"""axe-core, which finds what keeps people from using a page."""

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
    """Its source; the test is skipped where the package cannot be had."""
    return Path(node_with("axe-core"), "node_modules/axe-core/axe.min.js").read_text()


def faults(page: Page, source: str) -> list[dict[str, Any]]:
    """What is seriously wrong with a page as it stands now, its policy for scripts kept."""
    page.evaluate(source)
    found: list[dict[str, Any]] = page.evaluate(RUN)
    return [fault for fault in found if fault["impact"] in SERIOUS]
