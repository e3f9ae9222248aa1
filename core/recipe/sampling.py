"""What the arms' samplers make of data that are known: said before a run, and in its report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args, get_origin

from fw.core.diffusion.spread import FINE, Spread, spread
from fw.core.kinds import Sampler
from fw.core.recipe.arm import Arm
from fw.core.recipe.effect import alike
from fw.core.recipe.finding import Finding, Location, in_yaml, location_of_section
from fw.core.recipe.model import Recipe

TOLERANCE = 0.05
"""A spread that is further from 1 is warned about."""

MOST_GAIN = 10
"""More is warned about: an error of 1 % in what the network says, which is little, would be one of
10 % of the data in the samples."""

PIXELS, LATENTS = 0.5, 1.0
"""The standard deviation of images in -1..1 by EDM (arXiv 2206.00364, table 1), and of latents,
which autoencoders make of unit variance."""

MORE_STEPS = (2, 4)
"""How many times more steps are tried for a remedy."""


def arm_spread(recipe: Recipe, arm: Arm) -> Spread | None:
    """What the arm's sampler makes of Gaussian data under its process; None if that is not
    known."""
    usual = PIXELS if recipe.latents is None else LATENTS
    return spread(arm.sampler, arm.process, arm.process.data_std or usual)


def off_the_data(recipe: Recipe) -> Iterator[Finding]:
    """Samplers that would miss the data's spread if the network were exact, or that make much of
    its errors."""
    reasons: dict[tuple[Location, str], None] = {}
    for name in recipe.arms:
        arm = recipe.arm(name)
        result = arm_spread(recipe, arm)
        if result is None:
            continue
        at = location_of_section(recipe, name, "sampler")
        who = f"{in_words(arm.sampler)} under process '{arm.process.name}'"
        faults = [
            *([] if fits(result) else [missed(result)]),
            *([] if result.gain <= MOST_GAIN else [magnified(result)]),
        ]
        if faults:
            reasons[at, f"{who}: {'; '.join(faults)}; {remedy(recipe, arm, result)}"] = None
    yield from (Finding(at, reason) for at, reason in reasons)


def fits(result: Spread) -> bool:
    allowed = TOLERANCE + 2 * result.standard_error
    return all(abs(ratio - 1) <= allowed for ratio in (result.whole, result.detail))


def missed(result: Spread) -> str:
    return (
        f"an exact network's samples of Gaussian data (standard deviation {result.data:g}) would "
        f"have {result.whole:.3f} of its spread (1 is right), and detail {FINE} times finer "
        f"{result.detail:.3f}"
    )


def magnified(result: Spread) -> str:
    return (
        f"an error of 1 % in what the network predicts would be {result.gain:.0f} % of the data's "
        "spread in the samples, since a step ends where there is much less noise than where it "
        "begins"
    )


def remedy(recipe: Recipe, arm: Arm, fault: Spread) -> str:
    """What of the sampler's own fields would mend the `fault`: another schedule, or more steps."""

    def by(fields: dict[str, object]) -> Spread | None:
        sampler = arm.sampler.model_copy(update=fields)
        return arm_spread(recipe, arm.model_copy(update={"sampler": sampler}))

    begins = getattr(arm.sampler, "sigma_max", None) is not None
    free: dict[str, object] = {"sigma_max": None} if begins else {}
    for fields in variations(arm.sampler, free if by(free) != fault else {}):
        result = by(fields)
        if result is not None and fits(result) and result.gain <= MOST_GAIN:
            right = []
            if not fits(fault):
                right.append(f"they would be {result.whole:.3f} and {result.detail:.3f}")
            if fault.gain > MOST_GAIN:
                right.append(f"that error would be {result.gain:.1f} %")
            return f"with {written(fields)} {', and '.join(right)}"
    return "take more steps, another spacing of noise levels or another sampler"


def variations(sampler: Sampler, own: dict[str, object]) -> Iterator[dict[str, object]]:
    """What of its fields may be changed, the least first: the schedule, the steps, both; beside
    what is changed in all cases, `own`."""
    if own:
        yield own
    fields = type(sampler).model_fields
    schedules: tuple[str, ...] = ()
    if "schedule" in fields and get_origin(fields["schedule"].annotation) is Literal:
        schedules = get_args(fields["schedule"].annotation)
    for times in (1, *MORE_STEPS):
        if times > 1 and isinstance(steps := getattr(sampler, "steps", None), int):
            own = {**own, "steps": times * steps}
            yield own
        for schedule in schedules:
            if schedule != getattr(sampler, "schedule", None):
                yield {**own, "schedule": schedule}


def written(fields: dict[str, object]) -> str:
    return f"'{', '.join(f'{key}: {in_yaml(value)}' for key, value in fields.items())}'"


def in_words(sampler: Sampler) -> str:
    """`dpmpp (steps: 20)`: the sampler with its steps and what is not its default."""
    defaults = type(sampler).model_fields
    said = [
        f"{key}: {in_yaml(value)}"
        for key, value in sampler.model_dump(mode="json").items()
        if key == "steps" or getattr(sampler, key) != defaults[key].get_default()
    ]
    return f"{sampler.name} ({', '.join(said)})" if said else sampler.name


def baselines(recipe: Recipe) -> list[str]:
    """The baseline, and arms that are the same but for their sampler: its other chances."""
    baseline = recipe.arm(recipe.baseline)
    return [name for name in recipe.arms if same_but_sampler(recipe.arm(name), baseline)]


def same_but_sampler(one: Arm, other: Arm) -> bool:
    return alike(one.model_copy(update={"sampler": other.sampler}), other)


def across_samplers(recipe: Recipe) -> Iterator[Finding]:
    """Arms with a sampler that the baseline is never drawn with."""
    given = [recipe.arm(name).sampler for name in baselines(recipe)]
    baseline = recipe.arm(recipe.baseline).sampler
    for name in recipe.arms:
        sampler = recipe.arm(name).sampler
        if sampler not in given:
            yield Finding(
                location_of_section(recipe, name, "sampler"),
                f"the comparison is across samplers: {in_words(sampler)}, NFE {sampler.nfe}, "
                f"against the baseline's {in_words(baseline)}, NFE {baseline.nfe}; a fair one "
                "gives the baseline its best sampler, too: add an arm like the baseline with this "
                "one",
            )
