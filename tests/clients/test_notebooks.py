"""Both clients in a real Jupyter kernel, whose event loop runs while cells do."""

import json
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

from tests.clients.conftest import SCRIPT_S, SCRIPTS, World
from tests.clients.environments import python_with

ROOT = Path(__file__).parents[2]
PYTHON = partial(python_with, "ipykernel", "nbclient", "tqdm")
PAGE = (ROOT / "docs/python.md").read_text()
Outputs = list[dict[str, Any]]


def run(world: World, folder: Path, *cells: str) -> list[Outputs]:
    """What each cell has put out, none of them an error."""
    file = folder / "cells.json"
    file.write_text(json.dumps(cells))
    ours = os.pathsep.join([str(ROOT), *(path for path in sys.path if "site-packages" in path)])
    done = subprocess.run(
        [PYTHON(), SCRIPTS / "run_notebook.py", file],
        env=world.variables | world.env | {"PYTHONPATH": ours},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=SCRIPT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    outputs: list[Outputs] = json.loads(done.stdout)
    return outputs


def html(output: dict[str, Any]) -> str:
    return "".join(output["data"]["text/html"])


def pictures(text: str) -> int:
    return len(re.findall(r'<img src="data:image/png;base64,[\w+/=]{100,}"', text))


def test_the_code_of_the_docs_shows_what_it_makes(world: World, tmp_path: Path) -> None:
    [code] = re.findall(r"\n## Notebooks\n\n```python\n(.*?)```", PAGE, re.DOTALL)
    _, *cells = code.split("# %%\n")
    waited, captioned, awaited, mapped = run(world, tmp_path, *cells)
    line, drawn = waited
    assert "succeeded" in html(line)
    assert pictures(html(drawn)) == 1
    assert "a large red circle on a white background — scenes, seed 7" in html(drawn)
    assert pictures(html(captioned[-1])) == 1
    assert "circle" in html(captioned[-1]).partition("<figcaption")[2]
    for outputs, about in ((awaited, "a small blue star — scenes"), (mapped, ">0, seed")):
        [shown] = outputs
        assert pictures(html(shown)) == 1
        assert about in html(shown)


STEPS = """
from IPython.core.displaypub import DisplayPublisher
from crossmodal import AsyncClient, Client, JobCanceled

seen = []
publish = type(get_ipython().display_pub).publish

def remember(self, data, *args, **kwargs):
    seen.append(data.get("text/html", ""))
    return publish(self, data, *args, **kwargs)

type(get_ipython().display_pub).publish = remember
asked = {"prompt": "in a notebook", "model": "sketcher", "steps": 8}
"""


def test_progress_is_told_step_by_step_to_who_blocks_and_who_awaits(
    world: World, tmp_path: Path
) -> None:
    blocks = "with Client() as client:\n    client.txt2img(**asked).result(progress=True)"
    awaits = (
        "async with AsyncClient() as client:\n"
        "    await (await client.txt2img(**asked)).result(progress=True)"
    )
    tell = "bars = [text for text in seen if 'max=\"8\"' in text]; seen.clear(); print(len(bars))"
    outputs = run(world, tmp_path, STEPS, blocks, tell, awaits, tell)
    for told in (outputs[2], outputs[4]):
        assert int(told[0]["text"]) > 2


def test_many_are_counted_by_tqdm_and_gathered_by_the_loop(world: World, tmp_path: Path) -> None:
    counted = (
        "from crossmodal import AsyncClient, Client\nfrom tqdm import tqdm\nclient = Client()\n"
        "len(list(tqdm(client.map_txt2img(['a star', 'a ring', 'a heart']), total=3)))"
    )
    gathered = (
        "import asyncio\nasync with AsyncClient() as other:\n"
        "    jobs = await asyncio.gather(*(other.txt2img('a star') for _ in range(3)))\n"
        "    found = await asyncio.gather(*(job.result(timeout_s=60) for job in jobs))\nlen(found)"
    )
    one, other = run(world, tmp_path, counted, gathered)
    assert one[-1]["data"]["text/plain"] == other[-1]["data"]["text/plain"] == "3"
    assert "3/3" in "".join(output.get("text", "") for output in one)
