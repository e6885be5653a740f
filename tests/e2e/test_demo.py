"""The first thing a newcomer runs."""

import json
import subprocess
import sys
from pathlib import Path

import psutil
from PIL import Image


def test_the_demo_draws_captions_and_leaves_no_process(tmp_path: Path) -> None:
    before = {p.pid for p in psutil.process_iter()}
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-m", "crossmodal.cli", "demo", "--out", str(out), "--devices", "cpu",
         "--json"],
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert len(told["jobs"]) >= 16
    for job in told["jobs"]:
        with Image.open(out / "storage" / job["image"]) as picture:
            assert picture.size == (128, 128)
        assert (out / "storage" / job["image"]).with_name("result.json").is_file()
        assert job["caption"]
    with Image.open(told["contact_sheet"]) as sheet:
        assert sheet.width > 1000
        assert len(sheet.convert("RGB").getcolors(1 << 24) or []) > 500
    left = [p for p in psutil.process_iter(["cmdline"]) if p.pid not in before]
    ours = [p for p in left if any(w in " ".join(p.info["cmdline"] or [])
                                   for w in ("worker.", "flower", "valkey"))]  # fmt: skip
    assert not ours
