"""docs/notebook.ipynb, executed in a fresh kernel. As a script, it stores the outputs:

.venv/bin/python tests/kernels.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "docs/notebook.ipynb"

TIMEOUT = 800
"""Seconds for one cell, on a machine that has much else to do."""


class By(KernelSpecManager):
    """Kernels of one Python, whatever is installed elsewhere."""

    def __init__(self, python: Path):
        super().__init__()
        self.argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return KernelSpec(argv=self.argv, display_name=kernel_name, language="python")


def read() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def executed(folder: Path, python: Path = Path(sys.executable)) -> Any:
    """The notebook with fresh outputs, by a kernel of this Python; raises if a cell does."""
    notebook = read()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    manager = AsyncKernelManager(kernel_spec_manager=By(python))
    client = NotebookClient(
        notebook,
        km=manager,
        timeout=TIMEOUT,
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )
    return client.execute()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        notebook = executed(Path(folder))
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, NOTEBOOK)
