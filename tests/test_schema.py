"""`fw schema`: the JSON Schema of recipes, by a validator that knows nothing of fw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sites import fw

from fw.core.recipe.loading import load
from fw.core.recipe.source import parse, read

jsonschema = pytest.importorskip("jsonschema")

TESTS = Path(__file__).parent
RECIPES = [*sorted((TESTS.parent / "recipes").glob("*.yaml")), TESTS / "tiny.yaml"]


@pytest.fixture(scope="module")
def text() -> str:
    return fw("schema").out


@pytest.fixture(scope="module")
def validator(text: str) -> Any:
    schema = json.loads(text)
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_each_component_is_written_once(text: str) -> None:
    definitions = json.loads(text)["$defs"]
    assert text.count('"const": "self_guidance"') == 1
    assert definitions["guidance_self_guidance"]["properties"]["name"]["const"] == "self_guidance"
    assert len(text) < 300_000


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipes_are_valid_as_they_are_written(path: Path, validator: Any) -> None:
    assert [error.message for error in validator.iter_errors(read(path).data)] == []


@pytest.mark.parametrize("name", ["smoke", "ema_zoo", "latent_dit"])
def test_recipes_are_valid_as_they_are_resolved(name: str, validator: Any) -> None:
    resolved = parse(load(TESTS.parent / f"recipes/{name}.yaml").to_yaml(), "resolved").data
    assert [error.message for error in validator.iter_errors(resolved)] == []


@pytest.mark.parametrize(
    "change",
    [
        "train.stepps=3",
        "train.lr=fast",
        "sampler=dpmp",
        "annotator.cluster=3",
        "arms.self_1.5.guidance.scale=-1",
        "metrics.0.space={name: pca, dims: none}",
        "arms.self_1.5.samples={count: 3}",
        "fw=2",
        "metrics=null",
    ],
)
def test_a_wrong_recipe_is_refused(change: str, validator: Any) -> None:
    source = read(TESTS / "tiny.yaml")
    assert validator.is_valid(source.data)
    source.set([change])
    assert not validator.is_valid(source.data)
