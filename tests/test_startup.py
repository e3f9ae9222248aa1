"""What only answers a question about fw itself answers without torch, which takes seconds to
import."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "diffusers", "numpy", "mlflow", "sklearn")

ANSWER = """
import sys
from fw.core.cli import app

try:
    app(sys.argv[1:])
finally:
    print("imported", [name for name in {heavy} if name in sys.modules])
"""


@pytest.mark.parametrize(
    "words", [["--help"], ["run", "--help"], ["verify", "--help"], ["recipes"], []]
)
def test_help_and_the_list_of_recipes_import_nothing_heavy(words: list[str]) -> None:
    answer = subprocess.run(
        [sys.executable, "-c", ANSWER.format(heavy=HEAVY), *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.stdout.endswith("imported []\n"), answer.stderr
