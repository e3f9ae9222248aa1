"""Recipe text: strict YAML, the line of every key, and `--set`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fw.core.errors import RecipeError
from fw.core.recipe.source import Source, dump, parse, read


def value(text: str) -> Any:
    return parse(f"key: {text}", "r").data["key"]


def problems(text: str, sets: Sequence[str] = ()) -> list[str]:
    try:
        parse(text, "r.yaml").set(sets)
    except RecipeError as error:
        return error.problems
    return []


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        *[
            ("1e-4", 1e-4),
            ("1E5", 1e5),
            ("2.0e-3", 2e-3),
            (".5", 0.5),
            ("-.5", -0.5),
            ("1.", 1.0),
            ("+1.5", 1.5),
        ],
        *[
            ("012", 12),
            ("+7", 7),
            ("-0", 0),
            ("true", True),
            ("false", False),
            ("null", None),
            ("~", None),
            ("", None),
        ],
        *[
            (word, word)
            for word in (
                "no",
                "on",
                "yes",
                "off",
                "y",
                "N",
                "True",
                "FALSE",
                "Null",
                "0x1f",
                "0o17",
            )
        ],
        *[
            (word, word)
            for word in ("1_000", "1:30", "2024-01-31", "1e", "e5", "+", ".", "1.2.3", "inf", "nan")
        ],
        *[("'1'", "1"), ('"true"', "true"), ("<<", "<<"), ("=", "=")],
    ],
)
def test_only_what_looks_like_a_number_or_a_boolean_is_one(text: str, meant: Any) -> None:
    found = value(text)
    assert (found, type(found)) == (meant, type(meant))


def test_infinities_and_nan_are_numbers() -> None:
    assert (value(".inf"), value("-.inf")) == (math.inf, -math.inf)
    assert math.isnan(value(".nan"))


def test_every_repeated_key_and_every_key_that_is_not_text_is_told_with_its_line() -> None:
    text = "a: 1\nb:\n  c: 1\n  c: 2\n1: x\nd: [{e: 1, e: 2}]\ntrue: x\na: 2\n~: x\n"
    assert problems(text) == [
        "r.yaml:4: b.c: written twice",
        "r.yaml:5: 1: the key 1 is not text; quote it",
        "r.yaml:6: d.0.e: written twice",
        "r.yaml:7: true: the key true is not text; quote it",
        "r.yaml:8: a: written twice",
        "r.yaml:9: ~: the key ~ is not text; quote it",
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        *[
            ("a: 1\nb: [1, 2", 2),
            ("a: 1\n b: 2", 2),
            ("a: 1\n---\nb: 2", 2),
            ("a: *x", 1),
            ("a: &x [*x]", 1),
        ],
        *[
            ("a: {}\nb: &x 1", 2),
            ("a: !!int abc", 1),
            ("a: !!timestamp x", 1),
            ("a: !!python/object:os.system {}", 1),
        ],
        *[("? [a]\n: 1", 1), ("a: 'x", 1), ("a: @x", 1), ("\ta: 1", 1)],
    ],
)
def test_text_that_is_not_plain_yaml_is_one_clear_line(text: str, line: int) -> None:
    (problem,) = problems(text)
    assert re.match(rf"r\.yaml:{line}: not valid YAML: \w", problem), problem
    assert "\n" not in problem


def test_text_that_breaks_the_parser_itself_is_one_clear_line() -> None:
    (problem,) = problems("a: \x00")
    assert problem.startswith("r.yaml: not valid YAML: ")
    assert "\n" not in problem


@given(st.text())
def test_any_text_is_parsed_or_refused(text: str) -> None:
    assert all(problem.startswith("r.yaml:") for problem in problems(text))


odd = st.sampled_from(["1e5", "08", "no", "~", "1:30", "-.inf", ""])
texts = st.text(st.characters(codec="utf-8"), max_size=8) | odd
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts
data = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
)


@given(data)
@example({"1e5": "08", "08": "1e5"})  # text to YAML 1.1, numbers to YAML 1.2
def test_what_is_dumped_is_read_back_as_equal(original: Any) -> None:
    assert parse(dump(original), "r").data == original


def test_equal_parts_are_dumped_in_full() -> None:
    part = {"a": [1]}
    assert parse(dump([part, part]), "r").data == [part, part]


unique_keys = st.integers(0, 10**9).map("key{}".format)
trees = st.recursive(
    st.integers() | st.just("some text"),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.dictionaries(unique_keys, inner, min_size=1, max_size=3)
    ),
    max_leaves=12,
)


def locations(node: Any, path: tuple = ()) -> list[tuple]:
    entries = (
        node.items()
        if isinstance(node, dict)
        else enumerate(node)
        if isinstance(node, list)
        else ()
    )
    return [
        place for key, child in entries for place in [(*path, key), *locations(child, (*path, key))]
    ]


def key_at(tree: Any, path: tuple, text: str) -> int:
    """The line of a key, found by counting the keys of that name which are written before it."""
    names = [place[-1] for place in locations(tree)]
    earlier = names[: locations(tree).index(path)].count(path[-1])
    return [
        n
        for n, line in enumerate(text.splitlines(), 1)
        for _ in re.findall(rf"\b{path[-1]}:", line)
    ][earlier]


@settings(max_examples=60)
@given(
    tree=st.dictionaries(unique_keys, trees, min_size=1, max_size=4),
    flow=st.sampled_from([None, False, True]),
    width=st.sampled_from([20, 1000]),
    comment=st.booleans(),
)
def test_every_key_is_found_on_the_line_where_it_stands(
    tree: dict, flow: bool | None, width: int, comment: bool
) -> None:
    text = yaml.safe_dump(tree, default_flow_style=flow, width=width, sort_keys=False, indent=3)
    if comment:
        text = "# a comment\n\n" + text.replace("\nkey", "\n\n# another\nkey")
    source = parse(text, "r")
    assert source.data == tree
    assert set(source.lines) == set(locations(tree))
    for path in source.lines:
        if isinstance(path[-1], str):
            assert source.where(path) == f"r:{key_at(tree, path, text)}"


def test_entries_of_a_list_have_lines() -> None:
    source = parse("a:\n- x\n-\n  b: 1\n- [c,\n   d]\n", "r")
    assert source.lines == {
        ("a",): "r:1",
        ("a", 0): "r:2",
        ("a", 1): "r:4",
        ("a", 1, "b"): "r:4",
        ("a", 2): "r:5",
        ("a", 2, 0): "r:5",
        ("a", 2, 1): "r:6",
    }


def test_what_is_not_written_down_is_found_at_what_holds_it() -> None:
    source = parse("a:\n  b: {c: 1}\n", "r")
    assert source.where(("a", "b", "missing")) == "r:2"
    assert source.path(("a", "b", "missing")) == "a.b.missing"
    assert source.where(("a", "b", 0, "c")) == "r:2"  # b stands for a list of one
    assert source.path(("a", "b", 0, "c")) == "a.b.c"
    assert source.where(("z",)) == "r"
    assert source.path(()) == "recipe"


@pytest.mark.parametrize(
    "content", [b"", b"# nothing\n", b"- a\n", b"text\n", b"\xff\xfe\x00", b"a: [\n"]
)
def test_a_file_that_is_no_mapping_is_refused_in_one_line_that_names_it(
    tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        read(file)
    (problem,) = caught.value.problems
    assert problem.startswith(f"{file}:")


def test_a_file_that_is_not_there_and_a_folder_are_refused_in_one_line(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(RecipeError, match=re.escape(str(path))):
            read(path)


def test_line_ends_and_a_byte_order_mark_of_windows_do_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(b"\xef\xbb\xbfa: 1\r\nb:\r\n  c: 2\r\n")
    source = read(file)
    assert source.data == {"a": 1, "b": {"c": 2}}
    assert source.where(("b", "c")) == f"{file}:3"


SET = """\
name: x
train: {steps: 4}
annotator: kmeans
encoder: {name: dino, steps: 5, deep: {er: 1}}
metrics:
  - prdc
  - {name: fid, weights: null}
arms:
  self: {}
  self_1.5: {guidance: {name: cfg, scale: 1.5}}
  self_1.5.b: {annotator: null}
"""


def after(*assignments: str) -> Source:
    source = parse(SET, "r")
    source.set(assignments)
    return source


@pytest.mark.parametrize(
    ("assignment", "path", "meant"),
    [
        ("train.steps=2000", ("train", "steps"), 2000),
        ("train.lr=1e-4", ("train", "lr"), 1e-4),
        ("name=no", ("name",), "no"),
        ("name=a=b", ("name",), "a=b"),
        ("annotator=", ("annotator",), None),
        ("annotator={name: labels}", ("annotator", "name"), "labels"),
        ("annotator.clusters=5", ("annotator",), {"name": "kmeans", "clusters": 5}),
        ("sampler.steps=5", ("sampler",), {"steps": 5}),
        ("metrics.0.k=3", ("metrics", 0), {"name": "prdc", "k": 3}),
        ("metrics.1.weights=w.pth", ("metrics", 1, "weights"), "w.pth"),
        ("metrics.1=kid", ("metrics", 1), "kid"),
        ("metrics=[kid]", ("metrics",), ["kid"]),
        ("arms.self_1.5.guidance.scale=2", ("arms", "self_1.5", "guidance", "scale"), 2),
        ("arms.self_1.5.b.annotator=labels", ("arms", "self_1.5.b"), {"annotator": "labels"}),
        ("arms.self_1.5={}", ("arms", "self_1.5"), {}),
        ("arms.self.guidance.scale=2", ("arms", "self"), {"guidance": {"scale": 2}}),
        ("arms.new={annotator: null}", ("arms", "new"), {"annotator": None}),
        ('arms."new_1.5"={annotator: null}', ("arms", "new_1.5"), {"annotator": None}),
        ("arms.'self_1.5'.b=3", ("arms", "self_1.5", "b"), 3),
        ("metrics+={name: fd}", ("metrics", 2), {"name": "fd"}),
        ("name=a[0]+=b", ("name",), "a[0]+=b"),
    ],
)
def test_set_changes_one_entry_and_nothing_else(assignment: str, path: tuple, meant: Any) -> None:
    source, before = after(assignment), parse(SET, "r")
    changed: Any = source.data
    for part in path:
        changed = changed[part]
    assert changed == meant
    assert source.where(path) in ("--set #1", before.where(path))
    untouched = {key: entry for key, entry in source.data.items() if key != path[0]}
    assert untouched == {key: entry for key, entry in before.data.items() if key != path[0]}
    assert {key: line for key, line in source.lines.items() if key[0] != path[0]} == {
        key: line for key, line in before.lines.items() if key[0] != path[0]
    }


def test_assignments_build_on_each_other() -> None:
    source = after("annotator=labels", "annotator.clusters=5", "metrics+=kid", "metrics+=is")
    assert source.data["annotator"] == {"name": "labels", "clusters": 5}
    assert source.where(("annotator",)) == "--set #1"
    assert source.where(("annotator", "clusters")) == "--set #2"
    assert source.data["metrics"][2:] == ["kid", "is"]
    assert source.where(("metrics", 3)) == "--set #4"


def test_what_is_appended_to_a_single_entry_makes_a_list() -> None:
    source = parse("metrics: prdc\narms: {a: {guidance: {name: cfg, scale: 2}}, b: {}}\n", "r")
    source.set(
        [
            "metrics+={name: fd, space: pca}",
            "metrics.1.space.dims=4",
            "arms.a.guidance+=pag",
            "arms.a.guidance.0.scale=3",
            "arms.b.guidance+=pag",
        ]
    )
    assert source.data == {
        "metrics": ["prdc", {"name": "fd", "space": {"name": "pca", "dims": 4}}],
        "arms": {
            "a": {"guidance": [{"name": "cfg", "scale": 3}, "pag"]},
            "b": {"guidance": ["pag"]},
        },
    }
    assert source.where(("arms", "a", "guidance", 0, "name")) == "r:2"


def test_a_replaced_section_forgets_the_lines_of_what_it_held() -> None:
    source = after("encoder={name: pca, deep: {est: 2}}")
    assert source.where(("encoder", "steps")) == "--set #1"
    assert source.where(("encoder", "deep", "est")) == "--set #1"
    assert ("encoder", "deep", "er") not in source.lines


def test_a_section_that_is_added_to_keeps_its_line() -> None:
    source = after("train.lr=1")
    assert (source.where(("train",)), source.where(("train", "lr"))) == ("r:2", "--set #1")


@pytest.mark.parametrize(
    ("assignment", "problem"),
    [
        ("train.steps", "--set train.steps: expected KEY=VALUE, such as --set train.steps=2000"),
        ("=3", "--set =3: expected KEY=VALUE, such as --set train.steps=2000"),
        (
            "train..steps=3",
            "--set train..steps=3: expected KEY=VALUE, such as --set train.steps=2000",
        ),
        (
            "train.steps.more=3",
            "--set #2: train.steps is 4, not a mapping, so there is no 'more' to set in it",
        ),
        (
            "metrics.2.k=3",
            "--set #2: metrics is a list of 2 (0: prdc, 1: fid); write an index, from 0, "
            "instead of '2', or +=VALUE to append",
        ),
        (
            "metrics.-1.k=3",
            "--set #2: metrics is a list of 2 (0: prdc, 1: fid); write an index, from 0, "
            "instead of '-1', or +=VALUE to append",
        ),
        (
            "metrics.name=3",
            "--set #2: metrics is a list of 2 (0: prdc, 1: fid); write an index, from 0, "
            "instead of 'name', or +=VALUE to append",
        ),
        ("train={a: 1, a: 2}", "--set #2:1: a: written twice"),
        ("metrics[1].k=3", "--set metrics[1].k=3: no brackets: write metrics.1"),
        ("metrics[]=kid", "--set metrics[]=kid: no brackets: write metrics+=VALUE"),
        (
            "encoder.steps+=3",
            "--set #2: encoder.steps is no list, so nothing can be appended; write it whole, such "
            "as =[1, 2]",
        ),
        (
            "encoder.blocks+=mid",
            "--set #2: encoder.blocks is not in the recipe, so nothing can be appended; write it "
            "whole, such as =[1, 2]",
        ),
        (
            "arms.self_1.6.guidance.scale=2",
            "--set #2: arms has no 'self_1.6' (did you mean 'self_1.5'?); a new arm is set whole, "
            "such as 'arms.self_1.6={}'",
        ),
        (
            "arms.zebra.train.steps=2",
            "--set #2: arms has no 'zebra' (known: self, self_1.5, self_1.5.b); a new arm is set "
            "whole, such as 'arms.zebra={}'",
        ),
        ("train.lr=2", "--set #2: train.lr is set by --set #1, too; leave one of them out"),
        (
            "train={steps: 5}",
            "--set #2: train would undo --set #1, which sets train.lr; name train first",
        ),
    ],
)
def test_a_set_that_cannot_be_done_is_one_sentence_that_says_which(
    assignment: str, problem: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        after("train.lr=1", assignment)
    assert caught.value.problems == [problem]


def test_a_value_that_is_not_yaml_is_one_sentence_that_says_which_set() -> None:
    with pytest.raises(RecipeError, match=r"^--set #1:1: not valid YAML: "):
        after("train=[1, 2")


@given(
    st.lists(
        st.text(st.characters(codec="utf-8", categories=("L", "N", "P")), max_size=20), max_size=3
    )
)
def test_any_assignment_is_done_or_refused(assignments: list[str]) -> None:
    assert all(problem.startswith("--set ") for problem in problems(SET, assignments))
