"""What sizes a config may have: those of a bundle are a stranger's, and memory follows them."""

from typing import Annotated

from pydantic import Field

Size = Annotated[int, Field(ge=1, le=4_096)]
Count = Annotated[int, Field(ge=1, le=256)]
"""Of parts that are built one by one."""
