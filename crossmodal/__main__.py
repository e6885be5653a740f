"""The `crossmodal` command, as `python -m crossmodal`."""

from crossmodal.cli import main

main()
