"""The first thing a newcomer runs."""

import json
import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

from tests.marked import marked


def test_the_demo_draws_captions_and_leaves_no_process(tmp_path: Path) -> None:
    mark = str(tmp_path)
    out = tmp_path / "out"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "crossmodal.cli",
            "demo",
            "--out",
            str(out),
            "--devices",
            "cpu",
            "--json",
        ],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        env={**os.environ, "DEMO_TEST": mark},
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert len(told["jobs"]) >= 16
    for job in told["jobs"]:
        with Image.open(out / "storage" / job["image"]) as picture:
            assert picture.size == (128, 128)
        assert job["caption"]
    with Image.open(told["contact_sheet"]) as sheet:
        assert sheet.width > 1000
        assert len(sheet.convert("RGB").getcolors(1 << 24) or []) > 500
    assert not marked("DEMO_TEST", mark)
