"""report.html: one file that answers the question, whatever names arms and classes have."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sites import fw
from sklearn.neighbors import NearestNeighbors

from fw.core.diffusion.generate import conditions
from fw.core.plan.assembly import plan
from fw.core.plan.graph import Plan, Snapshot
from fw.core.recipe.loading import load
from fw.core.report.page.answer import answer
from fw.core.report.page.clusters import annotation_of, clusters, spread
from fw.core.report.page.figures import scales
from fw.core.report.page.marks import marks
from fw.core.report.page.material import Material
from fw.core.report.page.nearest import FIRST, found, nearest
from fw.core.report.page.pictures import EXACT, LARGEST, Picture, sheet
from fw.core.report.page.render import page
from fw.core.report.page.samples import samples
from fw.core.report.page.steps import steps
from fw.core.report.page.write import PAGE, save_page
from fw.core.store.store import Store

TINY = Path(__file__).parent / "tiny.yaml"

HOSTILE = "<script>alert('x')</script> \"&amp; $a_b$ {{ 7 * 7 }} </style>"

HIDDEN = "\x1b[2J\u202e\ud800"
"""Commands to a terminal, letters that turn the others around, and what UTF-8 cannot hold."""

QUESTION: dict[str, Any] = {
    "key": "fd_pca",
    "better": "lower",
    "rule": "Student's t over 3 trainings.",
    "sentences": ["self_1.5 is better than unconditional."],
    "comparisons": [
        {
            "arm": "self_1.5",
            "than": than,
            "role": role,
            "values": [],
            "difference": difference,
            "interval": interval,
            "p": 0.004,
            "adjusted": 0.012,
            "decision": decision,
            "spread": 0.1,
        }
        for than, role, difference, interval, decision in (
            ("unconditional", "baseline", -1.5, [-2.0, -1.0], "better"),
            ("self_1.0", "ablation", 0.5, [-0.5, 1.5], "undecided"),
        )
    ],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the smallest recipe, with more samples of each class."""
    out = tmp_path_factory.mktemp("page")
    done = fw(
        *("run", TINY, "--out", out, "--jobs", 1, "--device", "cpu"),
        *("--set", "tracker=null", "--set", "samples.count=60"),
    )
    assert done.code == 0, done.err
    folder = out / "tiny/latest"
    assert f"report  {folder / PAGE}\n" in done.out
    return folder


@pytest.fixture
def material(folder: Path) -> Material:
    recipe = load(folder / "recipe.resolved.yaml")
    result = json.loads((folder / "run.json").read_text("utf-8"))
    return Material(result, recipe, plan(recipe), Store(folder.parents[1] / "store"))


@dataclass
class Read(HTMLParser):
    """What a browser would make of a page, as far as it matters here."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(text: str) -> Read:
    made = Read()
    made.feed(text)
    return made


def pixels(picture: Picture) -> Image.Image:
    data = picture.address.removeprefix("data:image/webp;base64,")
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_a_run_ends_with_its_page_which_has_every_section_and_needs_no_other_file(
    folder: Path,
) -> None:
    text = (folder / PAGE).read_text("utf-8")
    made = read(text)
    ids = {attributes.get("id") for _, attributes in made.tags}
    sections = {"answer", "scores", "figures", "samples", "clusters", "nearest", "curves", "record"}
    assert sections <= ids
    for tag, attributes in made.tags:
        for name in ("src", "href", "action", "data", "srcset", "poster"):
            address = attributes.get(name) or "#"
            assert address.startswith(("#", "data:")), (tag, address)
    assert not re.search(r"@import|url\((?!#)", text)
    assert "fw run recipe.resolved.yaml" in made.text
    assert "fw reproduce . --again" in made.text


def test_a_page_is_written_again_where_its_content_changed_and_only_there(
    folder: Path, material: Material, tmp_path: Path
) -> None:
    path = tmp_path / PAGE
    save_page(material, path)
    assert path.read_bytes() == (folder / PAGE).read_bytes()
    path.write_text(path.read_text("utf-8") + "<!-- as it was -->", "utf-8")
    save_page(material, path)
    assert path.read_text("utf-8").endswith("<!-- as it was -->")
    save_page(replace(material, result={**material.result, "warnings": ["mind"]}), path)
    assert not path.read_text("utf-8").endswith("<!-- as it was -->")


def test_a_run_whose_page_stays_imports_no_library_for_it() -> None:
    code = "import fw.core.run.conclude, sys; print({'matplotlib', 'jinja2'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_first_screen_has_the_question_the_decision_and_the_difference_with_its_interval(
    material: Material,
) -> None:
    made = answer(replace(material, result={**material.result, "verdict": QUESTION}))
    assert made.question == "Is self_1.5 better than unconditional?"
    assert made.decision == "better"
    first, second = made.comparisons
    assert (first.difference, first.interval) == ("−1.50", "−2.00 to −1.00")
    assert (first.p, first.role, second.role) == ("0.012", "", "ablation")
    assert second.decision == "undecided"


def test_differences_and_intervals_lie_to_scale_on_one_axis_with_zero_on_it(
    material: Material,
) -> None:
    made = answer(replace(material, result={**material.result, "verdict": QUESTION}))
    spans = [each.span for each in made.comparisons]
    assert all(span is not None for span in spans)
    [one, other] = [span for span in spans if span is not None]
    unit = one.high - one.low  # -2 to -1
    assert one.zero - one.high == pytest.approx(unit, abs=0.02)
    assert one.value - one.low == pytest.approx(unit / 2, abs=0.02)
    assert (other.high - other.low) == pytest.approx(2 * unit, abs=0.02)
    assert one.zero == other.zero
    assert 0 < one.low < other.high < 100


def test_without_intervals_it_says_so_and_what_sampling_seeds_differ_by(material: Material) -> None:
    one = {**QUESTION["comparisons"][0], "interval": None, "p": None, "adjusted": None}
    one["decision"] = "undecided"
    verdict = {**QUESTION, "comparisons": [one, {**one, "arm": "self_1.0"}]}
    changed = replace(material, result={**material.result, "verdict": verdict})
    made = answer(changed)
    assert made.question == "Which of 2 arms are better than unconditional?"
    assert (made.decision, made.adjusted) == ("undecided", False)
    assert "none; ± 0.10 between sampling seeds" in read(page(changed, "")).text


def test_a_question_that_is_the_heading_is_not_said_twice(material: Material) -> None:
    said = ["Is self_1.5 better than unconditional? Yes: 1 against 2."]
    result = {**material.result, "verdict": {**QUESTION, "sentences": said}}
    assert answer(replace(material, result=result)).sentences == ["Yes: 1 against 2."]


def test_a_record_without_a_verdict_has_a_page(material: Material) -> None:
    older = {key: value for key, value in material.result.items() if key != "verdict"}
    text = read(page(replace(material, result=older), "")).text
    assert "Which of 2 arms are better than unconditional?" in text
    assert "run the recipe again for a verdict" in text


def hostile(material: Material) -> Material:
    """The same run, with a name that is code wherever anybody may choose one."""
    names = {name: f"{name} {HOSTILE}{HIDDEN}" for name in material.plan.arms}
    result: dict[str, Any] = json.loads(json.dumps(material.result))
    result["arms"] = {names[name]: arm for name, arm in result["arms"].items()}
    for arm in result["arms"].values():
        arm |= {"error": HOSTILE + HIDDEN, "sampler": HOSTILE + HIDDEN}
        arm["label_free"] = {"value": "no", "why": HOSTILE}
    result |= {"recipe": HOSTILE, "baseline": names["unconditional"], "warnings": [HOSTILE]}
    result |= {"classes": [HOSTILE] * 10, "plugins": {HOSTILE: dict.fromkeys(FACTS, HOSTILE)}}
    result["verdict"] = {
        **QUESTION,
        "rule": HOSTILE,
        "sentences": [HOSTILE, HOSTILE],
        "comparisons": [
            {**each, "arm": names[each["arm"]], "than": names[each["than"]]}
            for each in QUESTION["comparisons"]
        ],
    }
    arms = {names[name]: arm for name, arm in material.plan.arms.items()}
    return replace(material, result=result, plan=Plan(material.plan.stages, arms))


FACTS = ("distribution", "version", "api", "source")


def test_names_that_are_code_are_text(material: Material) -> None:
    plain, made = (read(page(each, "")) for each in (material, hostile(material)))
    assert [tag for tag, _ in made.tags].count("script") == 1
    assert [tag for tag, _ in made.tags].count("style") == [tag for tag, _ in plain.tags].count(
        "style"
    )
    assert not {name for _, attributes in made.tags for name in attributes if name[:2] == "on"}
    assert made.text.count(" ".join(HOSTILE.split())) > 20
    assert not {"\x1b", "\u202e", "\ud800"} & set("".join(made.words))
    assert "49" not in [word.strip() for word in made.words if "7 * 7" in word]


def test_every_arm_has_a_mark_of_its_own() -> None:
    made = marks(["base", *map(str, range(42))], "base")
    assert len(set(made.values())) == 43
    assert made["base"].colour == 0


def test_small_images_are_kept_to_the_bit_with_nothing_between_them() -> None:
    images = torch.randint(256, (5, 3, EXACT, EXACT), dtype=torch.uint8)
    made = pixels(sheet(images, 3))
    gap = EXACT // 16
    assert made.size == (3 * EXACT + 2 * gap, 2 * EXACT + gap)
    for place, image in enumerate(images):
        row, column = divmod(place, 3)
        corner = (column * (EXACT + gap), row * (EXACT + gap))
        tile = made.crop((*corner, corner[0] + EXACT, corner[1] + EXACT)).convert("RGB")
        assert np.array_equal(np.asarray(tile), image.permute(1, 2, 0))
    assert not np.asarray(made.convert("RGBA"))[:, EXACT : EXACT + gap, 3].any()


def test_large_images_become_small_ones_of_the_same_form() -> None:
    images = torch.zeros(1, 3, 4 * LARGEST, 2 * LARGEST, dtype=torch.uint8)
    assert pixels(sheet(images, 1)).size == (LARGEST // 2, LARGEST)


def test_what_stands_in_one_place_is_the_same_sample_of_every_arm(material: Material) -> None:
    made = samples(material)
    assert made is not None
    assert [column.name for column in made.columns] == list(material.plan.arms)
    for column in made.columns:
        drawn = material.plan.arms[column.name].drawn
        every = drawn.load(material.folder(drawn))[0]
        second = pixels(column.picture).crop((9, 0, 17, 8)).convert("L")
        assert np.array_equal(np.asarray(second), every[1, 0])


def test_a_gallery_sets_samples_that_were_drawn_for_a_class_beside_its_real_images(
    material: Material,
) -> None:
    made = clusters(material)
    assert made is not None
    [gallery] = made.galleries
    assert [name for name, _ in gallery.arms] == ["self_1.0", "self_1.5"]
    arm = material.plan.arms["self_1.5"]
    annotation = annotation_of(material, arm)
    real = material.images("train")
    assert annotation is not None
    assert real is not None
    drawn = arm.drawn.load(material.folder(arm.drawn))[0]
    wanted = conditions(annotation, 0, 0, range(len(drawn)))
    assert wanted is not None
    for each in gallery.classes:
        number, picture = int(each.name), each.drawn[1]
        assert np.array_equal(corner(each.real), real.images[annotation.conditions == number][0, 0])
        assert each.size == (annotation.conditions == number).sum()
        if picture is None:
            assert number not in wanted
        else:
            assert np.array_equal(corner(picture), drawn[wanted == number][0, 0])


def corner(picture: Picture) -> Any:
    return np.asarray(pixels(picture).crop((0, 0, 8, 8)).convert("L"))


def test_classes_are_chosen_from_the_largest_to_the_smallest_that_has_images() -> None:
    sizes = torch.arange(100, -1, -1)
    chosen = spread(sizes)
    assert (chosen[0], chosen[-1], len(chosen)) == (0, 99, 10)
    assert spread(torch.tensor([0, 3, 7])) == [2, 1]


def test_nearest_training_images_are_those_that_scikit_learn_names(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    draw = torch.Generator().manual_seed(0)
    train = torch.randn(9000, 6, generator=draw)
    samples = torch.randn(50, 6, generator=draw)
    samples[7] = train[8191]
    save_file({"train": train}, tmp_path / "features.safetensors")
    distances, numbers = found(samples, tmp_path / "features.safetensors")
    expected, places = NearestNeighbors(n_neighbors=1).fit(train.numpy()).kneighbors(samples)
    assert numbers.tolist() == places[:, 0].tolist()
    assert distances.tolist() == pytest.approx(expected[:, 0].tolist(), abs=1e-5)
    assert (distances[7], numbers[7]) == (0, 8191)


def test_held_out_images_are_the_measure_of_how_near_samples_lie(material: Material) -> None:
    made = nearest(material)
    assert made is not None
    assert made.first == material.recipe.samples.count < FIRST
    assert [row.name for row in made.rows] == [*material.plan.arms, "real held-out images"]
    assert made.rows[-1].median == "1.00"


def test_a_line_joins_arms_that_differ_in_the_scale_of_their_guidance_alone(
    material: Material,
) -> None:
    made = scales(material)
    assert made.places == {"self_1.0": 1.0, "self_1.5": 1.5}
    assert made.lines == [["self_1.0", "self_1.5"]]


def test_snapshots_are_curves_of_scores_and_rows_of_samples(material: Material) -> None:
    result: dict[str, Any] = json.loads(json.dumps(material.result))
    scores = {"fd_pca": {"mean": 1.5}}
    result["arms"]["self_1.0"]["snapshots"] = [
        {"step": step, "count": 20, "metrics": scores} for step in (20, 40, 60)
    ]
    arms = {name: replace(arm) for name, arm in material.plan.arms.items()}
    drawn = arms["self_1.0"].drawn
    arms["self_1.0"].snapshots = [Snapshot(step, drawn, []) for step in (20, 40, 60)]
    changed = replace(material, result=result, plan=Plan(material.plan.stages, arms))
    made = steps(changed)
    assert made is not None
    [way] = made.arms
    assert (way.name, way.steps, way.picture.rows) == ("self_1.0", [20, 40, 60], 3)
    every = np.asarray(pixels(way.picture).convert("L"))
    first = drawn.load(material.folder(drawn))[0][1, 0]
    for row in range(3):
        assert np.array_equal(every[9 * row : 9 * row + 8, 9:17], first)
    text = read(page(changed, "")).text
    assert "fd_pca of snapshots" in text
    assert "20, 40, 60" in text


def test_damaged_samples_and_a_lost_data_set_leave_pictures_out_and_the_page_is_written(
    material: Material, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(material.store.root, tmp_path / "store")
    damaged = replace(material, store=Store(tmp_path / "store"))
    [file, *_] = (tmp_path / "store" / damaged.plan.arms["self_1.0"].sample).glob("samples-000*")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    made = samples(damaged)
    assert made is not None
    assert [column.name for column in made.columns] == ["unconditional", "self_1.5"]
    monkeypatch.setattr(type(damaged.recipe.dataset), "load", lambda *_: 1 / 0)
    text = page(damaged, "")
    assert 'id="samples"' in text
    assert 'id="clusters"' not in text
