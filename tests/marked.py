"""Find all processes of a test, also indirect ones, by a variable in their environment."""

import psutil


def marked(name: str, value: str, *also: str) -> list[psutil.Process]:
    """Return processes with this variable in their environment, and those named in `also`."""
    return [process for process in psutil.process_iter() if _has(process, name, value, also)]


def _has(process: psutil.Process, name: str, value: str, also: tuple[str, ...]) -> bool:
    try:
        env = process.environ()
        alive = process.status() != psutil.STATUS_ZOMBIE
        return alive and env.get(name) == value and all(variable in env for variable in also)
    except psutil.Error:  # it has ended, or belongs to another user
        return False
