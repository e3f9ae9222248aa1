"""A new field at its neutral value changes no key and no run folder, wherever it stands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import BaseModel, Field

from fw.core.kinds import Annotator, Encoder
from fw.core.recipe.model import Recipe
from fw.core.settings import Samples, Train
from fw.registry import ANY, Neutral, installed
from fw.registry.neutral import lean, neutral

FIELDS = Path(__file__).parent / "golden/fields.json"


class Before(Encoder):
    name: ClassVar[str] = "grown"
    dims: int = 8

    def build(self, shape: Any, classes: int) -> Any:
        raise NotImplementedError


class After(Before):
    name: ClassVar[str] = "grown"
    whiten: Annotated[bool, Neutral(False)] = Field(False, description="...")


class Inner(BaseModel):
    steps: int = 3
    shift: Annotated[float, Neutral(1.0)] = 1.0


class Holder(Annotator):
    name: ClassVar[str] = "holder"
    encoder: Encoder = After()
    inner: Inner = Inner()
    many: tuple[Inner, ...] = (Inner(), Inner(shift=2.0))
    named: dict[str, Inner] = {}  # noqa: RUF012

    def annotate(self, data: Any, job: Any) -> Any:
        raise NotImplementedError


def test_a_component_with_a_new_field_keeps_its_identity_until_the_field_is_used() -> None:
    assert After().identity() == Before().identity()
    assert After(whiten=True).identity() == {**Before().identity(), "whiten": True}
    assert After().spec()["whiten"] is False  # a recipe shows it all the same


def test_neutral_fields_are_left_out_however_deep_they_stand() -> None:
    identity = Holder(named={"one": Inner()}).identity()
    assert identity["encoder"] == Before().identity()
    assert identity["inner"] == {"steps": 3}
    assert identity["many"] == [{"steps": 3}, {"steps": 3, "shift": 2.0}]
    assert identity["named"] == {"one": {"steps": 3}}
    assert lean(Holder(), Holder().spec())["inner"] == {"steps": 3}


def test_a_field_that_named_run_folders_before_goes_on_doing_so() -> None:
    labels: Any = installed().get("annotator", "labels")
    assert "known" not in labels().identity()
    assert lean(labels(), labels().spec())["known"] == 1.0


def holders() -> dict[str, type[BaseModel]]:
    """Whatever has fields that keys hold, by name."""
    components = [each for kind in installed().kinds() for each in installed().of_kind(kind)]
    sections: list[type[BaseModel]] = [Recipe, Samples, Train]
    return {f"{each.kind} {each.name}": each for each in components} | {
        each.__name__: each for each in sections
    }


def entering_keys() -> dict[str, set[str]]:
    """The fields that keys hold at whatever value, by component and section."""
    return {
        name: {field for field in model.model_fields if not is_neutral(model, field)}
        for name, model in holders().items()
    }


def is_neutral(model: type[BaseModel], field: str) -> bool:
    return any(isinstance(each, Neutral) for each in model.model_fields[field].metadata)


@pytest.mark.parametrize("name", sorted(entering_keys()))
def test_a_field_that_was_added_since_says_which_value_leaves_keys_as_they_were(name: str) -> None:
    golden = json.loads(FIELDS.read_text("utf-8"))
    if name in golden:  # a component that is new as a whole has thrown nothing away
        assert entering_keys()[name] <= set(golden[name])


def test_a_neutral_value_is_the_default_so_that_recipes_without_the_field_are_as_before() -> None:
    for name, model in holders().items():
        for field in model.model_fields:
            if is_neutral(model, field):
                assert neutral(model.model_construct(), field) is not None, f"{name}: {field}"


if __name__ == "__main__":
    FIELDS.write_text(
        json.dumps({name: sorted(fields) for name, fields in entering_keys().items()}, indent=1)
        + "\n"
    )


class Quick(Before):
    name: ClassVar[str] = "grown"
    threads: Annotated[int | None, Neutral(ANY)] = Field(None, description="...")


@pytest.mark.parametrize("threads", [None, 1, 2])
def test_a_field_that_changes_no_result_is_in_no_key_at_any_value(threads: int | None) -> None:
    assert Quick(threads=threads).identity() == Before().identity()
    assert Quick(threads=threads).spec()["threads"] == threads
