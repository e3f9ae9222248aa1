"""What is label-free: what weights have seen before fw is refused, warned about and shown, and it
goes with whatever is made of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal

import pytest
import torch
import toys
from safetensors import safe_open
from safetensors.torch import save_file
from sites import fw
from test_diffusers_backbone import dit, unet
from torch import nn

from fw.core.catalogue.example import example
from fw.core.errors import RecipeError
from fw.core.files.weights import noted, supervision_in
from fw.core.kinds import Backbone, Dataset, Encoder, brought_by
from fw.core.plan.assembly import plan
from fw.core.recipe.arm import LabelFree
from fw.core.recipe.checks import warnings
from fw.core.recipe.loading import validate
from fw.core.recipe.model import Recipe
from fw.core.recipe.source import read
from fw.core.report.markdown import markdown
from fw.core.report.tables import label_free
from fw.core.stages.encode import Encode
from fw.core.types import ConditionSpec
from fw.plugins.encoders.dino import Dino
from fw.plugins.encoders.inception import Inception
from fw.plugins.encoders.pixels import Pixels
from fw.plugins.encoders.timm_tags import supervision_of
from fw.plugins.objectives.repa import REPA
from fw.registry import CAPTIONS, NOTHING, UNKNOWN, Supervision, installed, labels_of
from fw.registry.supervision import parsed, strongest
from tests.saying import all_say, says

TINY = Path(__file__).parent / "tiny.yaml"
CLAIMING = "arms.self_1.5.guidance: "
TEXT_GUIDED = "arms.self_1.5={guidance: {name: cfg, scale: 1.5}}"
LINEAR = "process={name: ddpm, prediction: eps, schedule: linear}"


def made(*sets: str) -> Recipe:
    source = read(TINY)
    source.set(sets)
    return validate(source, installed())


def refused(*sets: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        made(*sets)
    return [re.sub(r"^(--set #\d+|\S+): ", "", problem) for problem in caught.value.problems]


def warned(*sets: str) -> list[str]:
    return [str(each) for each in warnings(made(*sets)) if "seen" in each.reason]


def free(*sets: str, arm: str = "self_1.5") -> LabelFree:
    recipe = made(*sets)
    return recipe.label_free(recipe.arm(arm))


def file_of(folder: Path, supervision: Supervision | None = None) -> Path:
    """A file of weights, as fw notes it, or as anybody writes it."""
    path = folder / "weights.safetensors"
    metadata = None if supervision is None else noted(supervision)
    save_file({"weight": torch.zeros(2)}, path, metadata)
    return path


# The fact


def test_the_strongest_supervision_counts_and_words_read_back() -> None:
    ordered = [NOTHING, UNKNOWN, CAPTIONS, labels_of("ImageNet")]
    for place, each in enumerate(ordered):
        assert parsed(str(each)) == each
        assert strongest(reversed(ordered[: place + 1])) == each
    assert strongest([]) == NOTHING
    assert str(parsed("labels")) == "labels"
    for wrong in (
        "",
        "label",
        "labels of",
        "labels of ",
        "ImageNet",
        "nothing\n",
        "labels of \x1b[2J",
    ):
        with pytest.raises(ValueError, match="labels of X"):
            parsed(wrong)


@pytest.mark.parametrize(
    ("field", "value", "known"),
    [
        ("weights", None, NOTHING),
        ("weights", Path("x.pt"), UNKNOWN),
        ("folders", (Path("x"),), UNKNOWN),
        ("model", "resnet18", UNKNOWN),
        ("model", "", NOTHING),
        ("repo", "someone/model", UNKNOWN),
        ("checkpoint_path", "x.ckpt", UNKNOWN),
        ("pretrained", True, UNKNOWN),
        ("pretrained", False, NOTHING),
        ("width", 64, NOTHING),
        ("augment", "photos", NOTHING),
        ("inner", Dino(weights=Path("x.pt")), NOTHING),
    ],
)
def test_a_component_that_does_not_say_is_unknown_where_its_fields_name_weights(
    field: str, value: object, known: Supervision
) -> None:
    namespace = {"__annotations__": {field: object}, field: value, "name": "someones"}
    own = type("Someones", (toys.Mean,), {**namespace, "__module__": __name__})
    assert own().own_supervision == known


class Ensemble(toys.Mean):
    """An encoder that holds another."""

    name: ClassVar[str] = "ensemble"
    inner: Encoder


def test_a_component_counts_with_what_it_holds_and_the_culprit_is_named() -> None:
    inner = made("encoder=inception", TEXT_GUIDED).encoder
    assert inner is not None
    brought = brought_by(Ensemble(inner=inner))
    assert brought.supervision == labels_of("ImageNet")
    assert brought.whose == "encoder 'inception' in encoder 'ensemble'"


def test_a_pretrained_backbone_that_does_not_say_is_unknown_and_images_are_no_weights() -> None:
    class Frozen(Backbone):
        """Somebody's."""

        name: ClassVar[str] = "frozen"
        pretrained: ClassVar[bool] = True

        def build(self, shape: tuple[int, int, int], condition: ConditionSpec | None) -> nn.Module:
            return nn.Identity()

    class Pictures(toys.Dots):
        """Somebody's."""

        root: Path = Path("pictures")

    assert Frozen().own_supervision == UNKNOWN
    assert issubclass(Pictures, Dataset)
    assert Pictures().own_supervision == NOTHING


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("vit_base_patch16_224.augreg_in21k_ft_in1k", labels_of("ImageNet")),
        ("vit_base_patch16_224.augreg_in21k", labels_of("ImageNet")),
        ("resnet50.a1_in1k", labels_of("ImageNet")),
        ("convnextv2_base.fcmae_ft_in22k_in1k_384", labels_of("ImageNet")),
        ("vit_base_patch16_clip_224.openai_ft_in12k", labels_of("ImageNet")),
        ("vit_small_patch16_224.dino", NOTHING),
        ("vit_small_patch14_dinov2.lvd142m", NOTHING),
        ("vit_large_patch16_dinov3.sat493m", NOTHING),
        ("convnext_tiny.dinov3_lvd1689m", NOTHING),
        ("vit_base_patch16_224.mae", NOTHING),
        ("vit_huge_patch14_gap_224.in1k_ijepa", NOTHING),
        ("vit_base_patch16_clip_224.openai", CAPTIONS),
        ("vit_so400m_patch14_siglip_224.webli", CAPTIONS),
        ("eva02_base_patch14_224.mim_in22k", CAPTIONS),
        ("vit_tiny_patch16_dinov3_qkvb.eupe_lvd1689m", UNKNOWN),
        ("vit_small_patch14_dinov2", UNKNOWN),
    ],
)
def test_timms_tags_say_what_weights_were_trained_with(name: str, known: Supervision) -> None:
    assert supervision_of(name) == known


def test_no_weights_that_timm_fine_tuned_on_imagenet_count_as_label_free() -> None:
    import timm

    names = timm.list_pretrained()
    tuned = [name for name in names if "_ft_in" in name or name.endswith(("in1k", "in21k"))]
    assert len(tuned) > 1000
    assert {supervision_of(name) for name in tuned} == {labels_of("ImageNet")}


def test_of_the_built_ins_only_those_that_bring_weights_have_seen_anything() -> None:
    registry = installed()
    brought = {
        component.name: str(brought_by(example(component, registry)).supervision)
        for component in registry.components.values()
    }
    unknown = dict.fromkeys(("kl", "rae", "tiny", "diffusers"), "unknown")
    labels = dict.fromkeys(("inception", "fid", "inception_score"), "labels of ImageNet")
    assert {name: said for name, said in brought.items() if said != "nothing"} == {
        **unknown,
        **labels,
        "clip": "captions",
        "cmmd": "captions",
    }


# Conditions


def test_self_guidance_is_refused_on_clusters_of_an_encoder_that_learned_from_labels() -> None:
    reason = "'self_guidance' ... encoder 'inception' ... labels of ImageNet ... cfg"
    assert all_say(refused("encoder=inception"), f"{CLAIMING} ... {reason}")
    assert not warned("encoder=inception", TEXT_GUIDED)
    said = free("encoder=inception", TEXT_GUIDED)
    assert said.value == "no"
    assert "encoder 'inception'" in said.why


def test_rcg_is_refused_in_the_same_way() -> None:
    rcg = "arms.self_1.5={annotator: representation, guidance: {name: rcg, scale: 1.5}}"
    assert all_say(refused("encoder=inception", rcg), f"{CLAIMING} ... 'rcg' ... 'inception'")
    assert made("encoder=pixels", rcg)


def test_an_encoder_that_no_condition_is_made_of_does_no_harm() -> None:
    assert free("encoder=inception", "annotator=random") == LabelFree("yes")


def test_captions_are_warned_about() -> None:
    assert all_say(
        warned("encoder=clip"), f"{CLAIMING} ... 'self_guidance' ... encoder 'clip' ... captions"
    )
    assert free("encoder=clip").value == "unknown"
    assert not warned("encoder=clip", TEXT_GUIDED)


@pytest.mark.parametrize("encoder", ["dino", "simclr", "diffusion", "repfusion", "dreamteacher"])
def test_a_file_of_weights_is_unknown_unless_it_or_the_recipe_says_what_it_has_seen(
    encoder: str, tmp_path: Path
) -> None:
    def given(more: str = "") -> str:
        return f"encoder={{name: {encoder}, weights: {path}{more}}}"

    path = file_of(tmp_path)
    assert all_say(
        warned(given()),
        f"{CLAIMING} ... 'self_guidance' ... encoder '{encoder}' ... `supervision`",
    )
    assert not warned(given(", supervision: nothing"))
    assert free(given(", supervision: nothing")) == LabelFree("yes")
    assert "labels of X-rays" in refused(given(", supervision: labels of X-rays"))[0]
    file_of(tmp_path, NOTHING)
    assert not warned(given())
    file_of(tmp_path, labels_of("digits"))
    for more in ("", ", supervision: nothing"):
        assert "labels of digits" in refused(given(more))[0]


@pytest.mark.parametrize("encoder", ["dino", "diffusion"])
def test_saying_what_weights_have_seen_where_there_are_none_is_refused(encoder: str) -> None:
    [fault] = refused(f"encoder={{name: {encoder}, supervision: nothing}}")
    assert "`supervision`" in fault
    assert "`weights`" in fault
    [fault] = refused(f"encoder={{name: {encoder}, weights: x.pt, supervision: none}}")
    assert "encoder.supervision" in fault
    assert "nothing, captions, unknown and labels of X" in fault


def test_a_recipe_that_does_not_say_it_has_the_keys_that_it_had(tmp_path: Path) -> None:
    path = file_of(tmp_path)
    assert "supervision" not in Dino(weights=path).identity()
    assert Dino(weights=path, supervision="nothing").identity()["supervision"] == "nothing"


def test_a_file_that_is_no_safetensors_says_nothing(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, tmp_path / "weights.pt")
    (tmp_path / "broken.safetensors").write_bytes(b"broken")
    save_file({"weight": torch.zeros(2)}, tmp_path / "odd.safetensors", {"fw.supervision": "some"})
    for name in ("weights.pt", "broken.safetensors", "odd.safetensors", "absent.safetensors"):
        assert supervision_in(tmp_path / name) == UNKNOWN


def test_a_student_of_a_denoiser_that_learned_classes_has_seen_their_labels(
    tmp_path: Path,
) -> None:
    model = f"{{name: diffusers, weights: {dit(tmp_path)}}}"
    student = f"{{name: repfusion, model: {model}, {LINEAR.replace('=', ': ')}, train: null}}"
    [fault] = refused(f"encoder={student}")
    assert says(fault, f"{CLAIMING} ... backbone 'diffusers' in encoder 'repfusion' ... labels")


def test_images_that_a_model_made_are_as_free_of_labels_as_the_model() -> None:
    folder = "{name: image_folder, root: made, size: 8, channels: 1%s}"
    assert free("dataset=" + folder % "") == LabelFree("yes")
    [fault] = refused("dataset=" + folder % ", supervision: labels of CIFAR-10")
    assert says(fault, f"{CLAIMING} ... dataset 'image_folder' ... labels of CIFAR-10")


# Denoisers


def test_an_objective_that_aligns_with_an_encoder_that_learned_from_labels_is_warned_about() -> (
    None
):
    repa = "arms.aligned={objectives: {name: repa, encoder: inception}}"
    assert all_say(
        warned(repa),
        "arms.aligned.objectives: ... encoder 'inception' in objective 'repa' ... ImageNet",
    )
    assert free(repa, arm="aligned").value == "no"
    assert free(repa, arm="self_1.5") == LabelFree("yes")
    assert not warned(repa.replace("={", "={annotator: labels, "))
    assert not warned(repa.replace("inception", "dinov2"))


def test_a_folder_of_diffusers_says_what_its_network_was_given(tmp_path: Path) -> None:
    def model(folder: Path, more: str = "") -> tuple[str, str]:
        return f"model={{name: diffusers, weights: {folder}{more}}}", LINEAR

    plain, classes = unet(tmp_path / "plain"), unet(tmp_path / "classes", num_class_embeds=5)
    assert free(*model(plain)) == LabelFree("yes")
    assert not warned(*model(plain))
    assert free(*model(classes)).value == "no"
    assert all_say(warned(*model(classes)), "model: ... backbone 'diffusers' ... labels")
    for more in ("", ", supervision: nothing"):
        assert free(*model(classes, more)).value == "no"
    assert free(*model(plain, ", supervision: labels of faces")).value == "no"
    absent = model(tmp_path / "absent")
    assert free(*absent).value == "unknown"
    assert all_say(warned(*absent), "model: ... backbone 'diffusers' ... `supervision`")
    assert not warned(*absent, TEXT_GUIDED)


def test_conditions_that_are_found_in_the_denoiser_have_seen_what_it_has_seen(
    tmp_path: Path,
) -> None:
    sets = (f"model={{name: diffusers, weights: {dit(tmp_path)}}}", LINEAR)
    classes = "arms.self_1.5={annotator: %s, guidance: {name: self_guidance, scale: 1.5}}"
    assert made(*sets, classes % "{name: kmeans, clusters: 5}")
    found = refused(*sets, classes % "online")
    assert any(says(each, f"{CLAIMING} ... backbone 'diffusers' ... labels") for each in found)


def test_latents_of_an_autoencoder_are_warned_about_where_an_arm_claims_to_be_free() -> None:
    latents = "latents={name: kl, weights: weights/kl, channels: 4, shrink: 2%s}"
    pixels = "sampler={name: dpmpp, steps: 3, clip: null}"
    known = ", supervision: labels of ImageNet"
    assert all_say(
        warned(latents % "", pixels), "latents: ... autoencoder 'kl' ... LPIPS ... `supervision`"
    )
    assert all_say(warned(latents % known, pixels), "latents: ... 'kl' ... labels of ImageNet")
    assert not warned(latents % "", pixels, TEXT_GUIDED)
    assert free(latents % "", pixels).value == "unknown"
    assert free(latents % known, pixels).value == "no"


class Hidden(REPA):
    """Aligns with an encoder that it does not hold in a field."""

    name: ClassVar[str] = "hidden"
    encoder: Literal["inception"] = "inception"  # type: ignore[assignment]

    @property
    def target(self) -> Encoder:
        return Inception()


def test_an_encoder_that_an_objective_asks_for_counts_where_it_is_in_no_field() -> None:
    recipe = made()
    arm = recipe.arm("unconditional").model_copy(update={"objectives": (Hidden(),)})
    assert recipe.label_free(arm).value == "no"
    assert "encoder 'inception'" in recipe.label_free(arm).why


def test_a_mode_that_is_off_brings_nothing(tmp_path: Path) -> None:
    worse = f"{{name: diffusers, weights: {dit(tmp_path)}}}"
    arm = "arms.a={annotator: null, guidance: {name: autoguidance, model: %s, scale: %d}}"
    assert free(arm % (worse, 2), LINEAR, arm="a").value == "no"
    assert free(arm % (worse, 1), LINEAR, arm="a") == LabelFree("yes")


# What is made of it, and where it is shown


def test_labels_that_components_are_given_are_named() -> None:
    oracle = "arms.oracle={annotator: labels}"
    assert free(oracle, arm="oracle") == LabelFree("no", "annotator 'labels' uses labels")
    arm = "arms.oracle={encoder: classifier}"
    assert free(arm, arm="oracle") == LabelFree("no", "encoder 'classifier' uses labels")
    assert free(oracle, arm="unconditional") == LabelFree("yes")


def metadata(path: Path) -> str:
    with safe_open(path, "pt") as file:
        return file.metadata()["fw.supervision"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with an oracle, an arm on weights that nobody knows, and free ones."""
    folder = tmp_path_factory.mktemp("run")
    path = folder / "backbone.pt"
    encoder = Dino()
    torch.save(encoder.build((1, 8, 8), 0).backbone.state_dict(), path)
    dino = f"{{name: dino, weights: {path}}}"
    arms = (
        "{unconditional: {annotator: null}, oracle: {annotator: labels}, "
        "taught: {encoder: {name: classifier, steps: 2}}, "
        f"brought: {{encoder: {dino}, guidance: {{name: self_guidance, scale: 1.5}}}}}}"
    )
    words: Iterable[str] = ("train.steps=2", "train.warmup=0", "samples.count=20", f"arms={arms}")
    sets = [each for word in words for each in ("--set", word)]
    done = fw("run", TINY, "--out", folder, "--jobs", 1, "--device", "cpu", *sets)
    assert done.code == 0, done.err
    assert "Label-free: unconditional; not label-free: oracle, taught; not known: brought." in (
        done.out
    )
    return folder / "tiny/latest"


def test_the_report_says_what_has_seen_labels(finished: Path) -> None:
    result = json.loads((finished / "run.json").read_text())
    known = {name: arm["label_free"] for name, arm in result["arms"].items()}
    assert known["unconditional"] == {"value": "yes", "why": ""}
    assert known["oracle"] == {"value": "no", "why": "annotator 'labels' uses labels"}
    assert known["brought"]["value"] == "unknown"
    report = (finished / "report.md").read_text()
    assert "oracle: annotator 'labels' uses labels" in report
    assert "brought: it is not known what the weights of encoder 'dino' have seen" in report
    for arm in result["arms"].values():
        del arm["label_free"]
    assert label_free(result) is None
    assert "## Labels" not in markdown(result)


def test_the_tracker_shows_it_for_each_arm(finished: Path) -> None:
    import mlflow

    root = finished.resolve().parents[1]
    client = mlflow.MlflowClient(f"sqlite:///{root / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    said = {run.info.run_name: run.data.params.get("label_free") for run in runs}
    assert said["unconditional"] == "yes"
    assert said["oracle"] == "no (annotator 'labels' uses labels)"


def test_stored_weights_and_samples_say_what_they_were_trained_with(finished: Path) -> None:
    source = read(finished / "recipe.resolved.yaml")
    recipe = validate(source, installed())
    store = finished.resolve().parents[1] / "store"
    wanted = {
        "unconditional": "nothing",
        "oracle": "labels of digits",
        "taught": "labels of digits",
        "brought": "unknown",
    }
    for name, arm in plan(recipe).arms.items():
        assert metadata(store / arm.train / "model.safetensors") == wanted[name]
        [first, *_] = sorted((store / arm.sample).glob("samples-*.safetensors"))
        assert metadata(first) == wanted[name]
        if arm.encode is not None:
            assert metadata(store / arm.encode / "encoder.safetensors") == wanted[name]


def test_what_is_made_of_an_arms_samples_has_seen_what_the_arm_has_seen() -> None:
    arms = plan(made("arms.oracle={annotator: labels}")).arms
    of_oracle, of_plain = (
        Encode(arms[name].drawn, Pixels(), seed=0) for name in ("oracle", "unconditional")
    )
    assert of_oracle.supervision == labels_of("digits")
    assert of_plain.supervision == NOTHING


def test_a_finished_run_that_would_be_refused_today_can_still_be_read() -> None:
    source = read(TINY)
    source.set(["encoder=inception"])
    with pytest.raises(RecipeError):
        validate(source, installed())
    recipe = validate(source, installed(), finished=True)
    assert recipe.label_free(recipe.arm("self_1.5")).value == "no"


def test_weights_of_a_run_carry_their_labels_into_the_next(finished: Path) -> None:
    store = finished.resolve().parents[1] / "store"
    recipe = validate(read(finished / "recipe.resolved.yaml"), installed())
    arms = plan(recipe).arms
    model = "{name: unet, channels: [8, 16], groups: 4}"
    encoder = "encoder={name: diffusion, model: %s, weights: %s}"
    labelled = store / arms["oracle"].train / "model.safetensors"
    [fault] = refused(encoder % (model, labelled))
    assert says(fault, f"{CLAIMING} ... encoder 'diffusion' ... labels of digits")
    unlabelled = store / arms["unconditional"].train / "model.safetensors"
    assert free(encoder % (model, unlabelled)) == LabelFree("yes")
