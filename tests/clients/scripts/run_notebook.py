"""Run cells in a Jupyter kernel: run_notebook.py CELLS, a file of JSON; prints each one's outputs.

What a cell has shown again and again in one place is there as it was in the end.
"""

import json
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

cells = json.loads(Path(sys.argv[1]).read_text())
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code) for code in cells])
NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
print(json.dumps([cell.outputs for cell in notebook.cells]))
