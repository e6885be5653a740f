"""A virtual environment for each library in the comparison.

They cannot share one: arq needs redis below 6, and this project redis 7.1.
"""

import subprocess
import sys
import sysconfig
from pathlib import Path

from platformdirs import user_cache_path

CONTENDERS = Path(__file__).with_name("contenders")
CACHE = user_cache_path("crossmodal-bench")


def environment(name: str, with_ours: bool = False) -> Path | None:
    """Return the environment's bin folder, made on the first call; None if that fails.

    `with_ours` lets it import this interpreter's packages, such as the models and torch.
    """
    wanted = CONTENDERS / f"requirements-{name}.txt"
    folder = CACHE / name
    done = folder / "installed.txt"
    if not (done.exists() and done.read_text() == wanted.read_text()):
        try:
            _install(folder, wanted, with_ours)
        except subprocess.CalledProcessError as e:
            print(f"{name} is left out, as it cannot be installed: {e}", file=sys.stderr)
            return None
        done.write_text(wanted.read_text())
    return folder / "bin"


def _install(folder: Path, wanted: Path, with_ours: bool) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    if with_ours:
        _see_ours(folder)
    pip = [str(folder / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "-r", str(wanted)], check=True)


def _see_ours(folder: Path) -> None:
    """Add this interpreter's packages, by addsitedir: it runs an editable install's .pth file."""
    ours = sysconfig.get_path("purelib")
    [theirs] = folder.glob("lib/python*/site-packages")
    (theirs / "ours.pth").write_text(f"import site; site.addsitedir({ours!r})\n")
