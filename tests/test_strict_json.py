"""run.json and answers are JSON that every reader takes, also where scores are infinite; read back
they are what they were, as are files of before."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from fw.core.files.layout import RUN_FILE
from fw.core.files.strict import in_numbers, strict
from fw.core.report.runfile import read_record
from fw.core.run.record import write_run

RESULT = {
    "recipe": "NaN",
    "arms": {"Infinity": {"scores": [1.5, math.inf, -math.inf], "floor": None, "n": 3}},
    "verdict": {"comparisons": [{"arm": "Infinity", "difference": math.nan}], "ok": True},
}


def refused(word: str) -> float:
    raise ValueError(word)


def test_numbers_that_are_not_finite_are_text_which_reads_back_as_what_it_was() -> None:
    document = json.loads(strict(RESULT), parse_constant=refused)
    assert document["arms"]["Infinity"]["scores"] == [1.5, "Infinity", "-Infinity"]
    back = in_numbers(document)
    assert back["arms"] == RESULT["arms"]
    assert math.isnan(back["verdict"]["comparisons"][0].pop("difference"))
    assert back["verdict"] == {"comparisons": [{"arm": "Infinity"}], "ok": True}
    assert back["recipe"] == "NaN"


def test_finite_numbers_are_written_as_before() -> None:
    values = {"a": [1, 2.5, None, "text", True], "b": {"c": 1e300}}
    assert strict(values) == json.dumps(values, indent=1)


@pytest.mark.parametrize("before", [False, True])
def test_run_json_is_read_as_it_was_written_now_and_before(tmp_path: Path, before: bool) -> None:
    result = {**RESULT, "verdict": None}
    if before:
        (tmp_path / RUN_FILE).write_text(json.dumps(result), encoding="utf-8")
    else:
        write_run(result, tmp_path)
        json.loads((tmp_path / RUN_FILE).read_text(encoding="utf-8"), parse_constant=refused)
    assert read_record(tmp_path) == result
