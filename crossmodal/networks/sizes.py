"""Bounds on sizes in a config: a bundle may be hostile, and sizes determine memory."""

from typing import Annotated

from pydantic import Field

Size = Annotated[int, Field(ge=1, le=4_096)]
Count = Annotated[int, Field(ge=1, le=256)]
"""Of parts that are built one by one."""
