"""The configuration with which `crossmodal flower` starts Flower.

Only what differs from Flower's defaults is set here. Flower also reads FLOWER_* variables, as
FLOWER_BASIC_AUTH=user:password, which requires a login.
"""

import os
import re
from typing import Any

MAX_PROMPT, MAX_KWARGS, MAX_READ = 80, 240, 1_000  # characters
PROMPT = re.compile(rf"""('prompt': (['"]))(.{{{MAX_PROMPT}}}).+?(?:\2(?=[,}}])|$)""")

address = os.environ.get("FLOWER_ADDRESS", "127.0.0.1")
port = int(os.environ.get("FLOWER_PORT", "5555"))
natural_time = True
tasks_columns = "name,uuid,state,kwargs,received,runtime,worker"
max_tasks = 10_000


def format_task(task: Any) -> Any:
    """Shorten long prompts and arguments on Flower's pages."""
    if task.kwargs:
        shown = PROMPT.sub(r"\1\3…\2", task.kwargs[:MAX_READ])
        task.kwargs = shown if len(shown) <= MAX_KWARGS else shown[: MAX_KWARGS - 1] + "…"
    return task
