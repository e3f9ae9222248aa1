"""diffusers' unconditional training, on the flagship's data and with its network, batch, steps and
averages, scored by fw's metrics.

    PYTHONPATH=tests python -m bench.peer --seed 0 1 2

What is trained and sampled uses diffusers and torch alone, as diffusers' documentation of
unconditional training describes it: a U-Net that predicts the noise under DDPM's cosine schedule,
AdamW with (0.95, 0.999) and weight decay 1e-6, a warm-up and a cosine, gradients clipped at 1, and
averaged weights. The learning rate and its warm-up are the recipe's too; `--lr` takes another. Then
the same images are scored as those of the recipe's baseline would be.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

import fw.recipes
from bench.ruler import Ruler
from bench.table import Scores, cell, legend, markdown
from fw.core.errors import FwError
from fw.core.recipe.loading import validate
from fw.core.recipe.model import Recipe
from fw.core.recipe.source import read
from fw.registry import installed

FLAGSHIP = Path(next(iter(fw.recipes.__path__))) / "self_guidance.yaml"

AT_ONCE = 500
"""Images that are sampled side by side."""

SAMPLERS = {"DDPM 250": 250, "DDIM 50": 50, "DPM-Solver++ 10": 10}
"""The ways of sampling, and their network evaluations per image."""


@dataclass(frozen=True)
class Setting:
    """What the training takes from the recipe."""

    channels: tuple[int, ...]
    layers: int
    groups: int
    steps: int
    batch: int
    lr: float
    warmup: int
    ema: float

    @staticmethod
    def of(recipe: Recipe) -> Setting:
        """That of the recipe's baseline, which is a `unet` without attention."""
        arm = recipe.arm(recipe.baseline)
        model: Any = arm.model
        if model.name != "unet" or model.attention or arm.annotator is not None:
            raise FwError("the peer is an unconditional unet without attention, as the flagship's")
        train = arm.train
        if train.ema is None:
            raise FwError("the peer's average has a decay, train.ema")
        return Setting(
            model.channels,
            model.layers,
            model.groups,
            train.steps,
            train.batch,
            train.lr,
            train.warmup,
            train.ema,
        )


def main(words: Sequence[str] | None = None) -> int:
    given = arguments(words)
    own = {"train.steps": given.steps, "train.lr": given.lr}
    try:
        source = read(given.recipe)
        source.set(given.set)
        source.set([f"{key}={value}" for key, value in own.items() if value is not None])
        recipe = validate(source, installed())
        with tempfile.TemporaryDirectory(prefix="peer-") as temporary:
            ruler = Ruler(recipe, given.out or Path(temporary))
            found = [scored(recipe, ruler, seed) for seed in given.seed]
    except FwError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    rows = [[f"diffusers, {name}", cell([each[name] for each in found])] for name in SAMPLERS]
    print(f"{markdown(['sampler', 'unconditional'], rows)}\n\n{legend(len(found))}")
    return 0


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.peer", description=__doc__)
    parser.add_argument("--recipe", type=Path, default=FLAGSHIP, help="[self_guidance.yaml]")
    parser.add_argument("--seed", type=int, nargs="+", default=[0], help="training seeds [0]")
    parser.add_argument("--steps", type=int, help="of training [the recipe's]")
    parser.add_argument("--lr", type=float, help="peak learning rate [the recipe's]")
    parser.add_argument("--set", action="append", default=[], help="as for `fw run`")
    parser.add_argument("--out", type=Path, help="a runs folder whose feature spaces are taken")
    return parser.parse_args(words)


def scored(recipe: Recipe, ruler: Ruler, seed: int) -> dict[str, Scores]:
    """One training, by the names of the samplers."""
    began = time.process_time()
    images = recipe.dataset.load("train").images
    model = trained(Setting.of(recipe), images, seed)
    print(f"seed {seed}: trained in {time.process_time() - began:.0f} CPU s", file=sys.stderr)
    found = {}
    for name, steps in SAMPLERS.items():
        scores = ruler.scores(
            [
                sampled(
                    model,
                    name,
                    noise_of(number, recipe.samples.count, images, seed),
                    fresh_seed(number, seed),
                )
                for number in range(recipe.samples.seeds)
            ]
        )
        means = (fmean(scores[key]) for key in ("fd_classifier", "fd_pca", "precision"))
        found[name] = Scores(*means, nfe=steps)
    return found


def network(setting: Setting, shape: Sequence[int]) -> Any:
    """The U-Net for images (C, H, W)."""
    from diffusers import UNet2DModel

    levels = len(setting.channels)
    return UNet2DModel(
        sample_size=shape[1],
        in_channels=shape[0],
        out_channels=shape[0],
        block_out_channels=setting.channels,
        layers_per_block=setting.layers,
        norm_num_groups=setting.groups,
        down_block_types=("DownBlock2D",) * levels,
        up_block_types=("UpBlock2D",) * levels,
        add_attention=False,
    )


def noise_schedule() -> Any:
    """DDPM's forward process with the cosine schedule; the network predicts the noise."""
    from diffusers import DDPMScheduler

    return DDPMScheduler(num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2")


def trained(
    setting: Setting,
    images: Tensor,
    seed: int,
    after: Callable[[int], None] = lambda done: None,
) -> Any:
    """The network with averaged weights, after a training on uint8 images (N, C, H, W). `after` is
    called after each step."""
    from diffusers.optimization import get_cosine_schedule_with_warmup
    from diffusers.training_utils import EMAModel

    torch.manual_seed(seed)
    model, process = network(setting, images.shape[1:]), noise_schedule()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=setting.lr, betas=(0.95, 0.999), weight_decay=1e-6
    )
    rate = get_cosine_schedule_with_warmup(optimizer, setting.warmup, setting.steps)
    ema = EMAModel(model.parameters(), decay=setting.ema)
    pixels = images.float() / 127.5 - 1
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(pixels), setting.batch, shuffle=True
    )
    done = 0
    while done < setting.steps:
        for (clean,) in loader:
            noise = torch.randn_like(clean)
            times = torch.randint(process.config.num_train_timesteps, (len(clean),))
            noisy = process.add_noise(clean, noise, times)
            loss = torch.nn.functional.mse_loss(model(noisy, times).sample, noise)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            rate.step()
            optimizer.zero_grad()
            ema.step(model.parameters())
            done += 1
            after(done)
            if done == setting.steps:
                break
    ema.copy_to(model.parameters())
    return model.eval()


def noise_of(number: int, count: int, images: Tensor, seed: int) -> Tensor:
    """The noise (count, C, H, W) that a sampling seed begins with, whatever the sampler."""
    draw = torch.Generator().manual_seed(1000 * seed + number)
    return torch.randn((count, *images.shape[1:]), generator=draw)


def fresh_seed(number: int, seed: int) -> int:
    """The seed of the noise that DDPM adds; by that of `noise_of` the first it adds would be what
    it starts from."""
    return 10**6 + 1000 * seed + number


@torch.inference_mode()
def sampled(model: Any, way: str, noise: Tensor, seed: int = 0) -> Tensor:
    """Images of noise (count, C, H, W), as uint8."""
    torch.manual_seed(seed)  # of the noise that DDPM adds
    batches = []
    for x in noise.split(AT_ONCE):
        scheduler = sampler(way)
        scheduler.set_timesteps(SAMPLERS[way])
        for time_step in scheduler.timesteps:
            predicted = model(x, time_step).sample
            x = scheduler.step(predicted, time_step, x).prev_sample
        batches.append(((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8))
    return torch.cat(batches)


def sampler(way: str) -> Any:
    """diffusers' scheduler, with the config of the training's."""
    from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

    schedulers = {
        "DDPM": DDPMScheduler,
        "DDIM": DDIMScheduler,
        "DPM-Solver++": DPMSolverMultistepScheduler,
    }
    return schedulers[way.split()[0]].from_config(noise_schedule().config)


if __name__ == "__main__":
    sys.exit(main())
