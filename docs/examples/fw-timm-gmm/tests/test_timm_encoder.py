"""timm keeps fw's contract; its weights come from a file that was checked, or are random and
reproducible."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from fw_timm_gmm import Timm
from pydantic import ValidationError
from safetensors.torch import save_file
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor, nn
from torchvision.transforms.functional import to_pil_image

from fw.core.errors import MissingFile
from fw.core.testing import check
from fw.registry import NOTHING, UNKNOWN

MODEL = "test_resnet"


def built(encoder: Timm, seed: int = 0, shape: tuple[int, int, int] = (1, 8, 8)) -> nn.Module:
    torch.manual_seed(seed)
    return encoder.build(shape, 0).eval()


def images(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0)).to(torch.uint8)


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.fixture
def donor() -> nn.Module:
    """A model with its classifier, as its authors would publish it."""
    torch.manual_seed(5)
    return timm.create_model(MODEL, num_classes=10).eval()


@pytest.fixture(params=["weights.safetensors", "weights.pth"])
def published(request: pytest.FixtureRequest, donor: nn.Module, tmp_path: Path) -> Path:
    file = tmp_path / request.param
    if file.suffix == ".pth":
        torch.save({"state_dict": donor.state_dict()}, file)
    else:
        save_file(donor.state_dict(), file)
    return file


def test_it_keeps_the_contract() -> None:
    check(Timm(model=MODEL))


def test_the_features_are_those_of_the_weights_in_the_file(published: Path, donor: Any) -> None:
    network = built(Timm(model=MODEL, weights=published, sha256=digest(published)))
    grey = images(3, 1, 8, 8)
    with torch.inference_mode():
        expected = donor.forward_head(
            donor.forward_features(network.prepared(grey)), pre_logits=True
        )  # type: ignore[operator]
        assert torch.allclose(network(grey), expected, atol=1e-6)
        assert not torch.allclose(built(Timm(model=MODEL))(grey), expected, atol=1e-2)


@pytest.mark.parametrize("side", [8, 160, 400])
def test_images_are_prepared_as_timm_prepares_them(side: int) -> None:
    network = built(Timm(model=MODEL))
    image = images(1, 3, side, side)
    config = resolve_model_data_config(network.network)
    theirs = create_transform(**{**config, "crop_pct": 1.0}, is_training=False)
    found = network.prepared(image)[0]  # type: ignore[operator]
    assert torch.allclose(found, theirs(to_pil_image(image[0])), atol=0.02)  # PIL rounds to 1/255


def test_a_grey_image_is_three_equal_channels() -> None:
    network = built(Timm(model=MODEL))
    grey = images(2, 1, 16, 16)
    assert torch.allclose(network(grey), network(grey.repeat(1, 3, 1, 1)), atol=1e-6)
    assert network.prepared(grey).shape == (2, 3, 160, 160)  # type: ignore[operator]


def test_without_a_file_the_weights_are_random_and_a_function_of_the_seed() -> None:
    grey = images(2, 1, 8, 8)
    first, again, other = (built(Timm(model=MODEL), seed)(grey) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_missing_file_is_found_missing_before_any_work(tmp_path: Path) -> None:
    encoder = Timm(model=MODEL, weights=tmp_path / "nowhere.pth", sha256="0" * 8)
    assert encoder.identity()["sha256"] == "0" * 8
    with pytest.raises(MissingFile, match=r"nowhere\.pth is not there"):
        encoder.preflight()


def test_the_wrong_file_is_refused_and_a_forgotten_hash_is_told(published: Path) -> None:
    with pytest.raises(
        MissingFile, match=f"begins with {digest(published)[:8]}, not with 00000000"
    ):
        Timm(model=MODEL, weights=published, sha256="0" * 8).preflight()
    with pytest.raises(MissingFile, match=f"write `sha256: '{digest(published)[:8]}'` as well"):
        Timm(model=MODEL, weights=published).preflight()
    with pytest.raises(MissingFile, match="as `weights`"):
        Timm(model=MODEL, sha256="0" * 8).preflight()
    Timm(model=MODEL, weights=published, sha256=digest(published)).preflight()


def test_the_content_of_the_file_is_the_identity_and_its_place_is_not(
    published: Path, tmp_path: Path
) -> None:
    here = Timm(model=MODEL, weights=published, sha256=digest(published))
    there = here.model_copy(update={"weights": tmp_path / "moved" / published.name})
    assert here.identity() == there.identity()
    assert here.identity() != Timm(model=MODEL).identity()
    assert here.identity() != here.model_copy(update={"sha256": "0" * 64}).identity()


def test_weights_of_another_model_are_refused_in_one_sentence(published: Path) -> None:
    encoder = Timm(model="test_vit", weights=published, sha256=digest(published))
    with pytest.raises(MissingFile, match="does not hold weights of this model"):
        built(encoder)


def test_a_file_that_would_run_code_is_not_read(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "sprung",)

    file = tmp_path / "trap.pth"
    torch.save({"weight": Trap()}, file)
    with pytest.raises(MissingFile, match="does not hold weights"):
        built(Timm(model=MODEL, weights=file, sha256=digest(file)))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("model", ["hf-hub:someone/something", "local-dir:/tmp", "../model"])
def test_names_that_would_be_fetched_from_elsewhere_are_refused(model: str) -> None:
    with pytest.raises(ValidationError):
        Timm(model=model)


@pytest.mark.parametrize(("model", "shape"), [("no_such_model", (3, 8, 8)), (MODEL, (4, 8, 8))])
def test_what_it_cannot_take_is_said_when_a_recipe_is_validated(
    model: str, shape: tuple[int, int, int]
) -> None:
    with pytest.raises(ValueError, match="encoder timm"):
        Timm(model=model).check(shape)


def test_nobody_knows_what_a_file_has_seen_and_random_weights_have_seen_nothing() -> None:
    assert Timm(model=MODEL).own_supervision == NOTHING
    assert Timm(model=MODEL, weights=Path("file.pth")).own_supervision == UNKNOWN
