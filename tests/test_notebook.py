"""docs/notebook.ipynb runs as it is, in a kernel of its own, and holds the outputs that it
makes."""

import re
from pathlib import Path
from typing import Any

import bare
import kernels
import pytest

MOST = 300_000
"""Bytes, so that it can be read in a browser and compared in git."""


def code(document: Any) -> list[Any]:
    return [cell for cell in document.cells if cell.cell_type == "code"]


def shape(cell: Any) -> list[tuple[str, list[str], str]]:
    """What a cell puts out: kinds, and texts without their numbers, which differ by machine."""
    found = []
    for output in cell.outputs:
        text = output.get("text") or output.get("data", {}).get("text/plain", "")
        words = re.sub(r"\S*[\d/]\S*|better|worse|[\s-]+", " ", text)
        found.append((output.output_type, sorted(output.get("data", {})), " ".join(words.split())))
    return found


@pytest.mark.timeout(900)
def test_the_notebook_runs_by_the_wheel_in_a_fresh_kernel_and_shows_what_it_shows_in_the_docs(
    tmp_path: Path,
) -> None:
    (tmp_path / "wheel").mkdir()
    python = bare.environment(bare.wheel(tmp_path / "wheel"), tmp_path / "bare")
    kept, fresh = kernels.read(), kernels.executed(tmp_path, python)
    for before, after in zip(code(kept), code(fresh), strict=True):
        assert before.source == after.source
        assert shape(before) == shape(after)
    assert (tmp_path / "runs/notebook/latest/report.html").exists()


def test_the_notebook_is_small_and_has_its_table_figure_and_pictures() -> None:
    kept = kernels.read()
    assert kernels.NOTEBOOK.stat().st_size < MOST
    outputs = [output for cell in code(kept) for output in cell.outputs]
    assert {output.output_type for output in outputs} <= {"execute_result", "stream"}
    assert all(cell.outputs for cell in code(kept))
    [run] = [output.data["text/html"] for output in code(kept)[0].outputs]
    assert all(f"<td>{arm}</td>" in run for arm in ("self_1.0", "self_1.5"))
    assert "data:image/png;base64," in run
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 4
