"""Finding what a test has started, whoever started it in turn: by a mark in the environment."""

import psutil


def marked(name: str, value: str, *also: str) -> list[psutil.Process]:
    """Processes that run with this variable, and with those of the names in `also`."""
    return [process for process in psutil.process_iter() if _has(process, name, value, also)]


def _has(process: psutil.Process, name: str, value: str, also: tuple[str, ...]) -> bool:
    try:
        env = process.environ()
        alive = process.status() != psutil.STATUS_ZOMBIE
        return alive and env.get(name) == value and all(variable in env for variable in also)
    except psutil.Error:  # it has ended meanwhile, or is somebody else's
        return False
