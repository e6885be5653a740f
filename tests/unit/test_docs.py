"""The documentation: every page is listed, every link leads somewhere."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *DOCS.rglob("*.md")]
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)#\s]*)(#[^)\s]*)?\)")


def links(page: Path) -> list[tuple[Path, str]]:
    """What a page links to in this repository, each with the heading that is named."""
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    return [
        ((page.parent / name).resolve() if name else page, anchor.removeprefix("#"))
        for name, anchor in LINK.findall(prose)
    ]


def anchors(page: Path) -> set[str]:
    """The names of a page's headings, as GitHub makes them."""
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    titles = (line.lstrip("#").strip() for line in prose.splitlines() if line.startswith("#"))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_link_leads_to_what_is_there() -> None:
    dead = {
        f"{page.relative_to(ROOT)}: {target.name}#{anchor}"
        for page in PAGES
        for target, anchor in links(page)
        if not target.exists() or (anchor and anchor not in anchors(target))
    }
    assert dead == set()


def test_every_page_is_listed() -> None:
    listed = {target for target, _ in links(DOCS / "README.md")}
    assert {page for page in DOCS.rglob("*.md") if page.name != "README.md"} - listed == set()
