"""Which plugins made a result: recorded in run.json and with the tracker, so that a number says
what computed it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping

from fw.core.plan.graph import Plan
from fw.core.recipe.model import Recipe
from fw.registry import LocalPlugin, Provider, installed
from fw.registry.api import notice
from fw.registry.component import components_in

Record = Mapping[str, Mapping[str, str | int]]


def providers(plan: Plan) -> list[Provider]:
    """The plugins that a plan's components came from, nested components included, by name."""
    registry = installed()
    found = {
        registry.provider(type(component))
        for stage in plan.stages.values()
        for component in stage.components
    }
    return sorted((provider for provider in found if provider is not None), key=str)


def record(plan: Plan) -> Record:
    """plugin -> its distribution, version, API version and the sha256 of its source as it is
    now."""
    found = providers(plan)
    count = Counter(provider.plugin for provider in found)
    return {
        provider.plugin
        if count[provider.plugin] == 1
        else f"{provider.plugin} of {provider.distribution}": (provider.facts())
        for provider in found
    }


def tags(made_by: Record) -> dict[str, str]:
    """The record as tags of a tracked run; their names are of letters, digits, blanks, `_`, `.`
    and `-`."""
    return {
        re.sub(r"[^\w. -]", "_", f"fw.plugin.{plugin}"): (
            "{distribution} {version}, API {api}, sha256 {source}".format(**facts)
        )
        for plugin, facts in made_by.items()
    }


def files(recipe: Recipe) -> list[LocalPlugin]:
    """The local plugins without which the recipe cannot be read: also what no stage uses, and
    the tracker."""
    named = {component.file_hash for component in components_in(recipe)}
    return [plugin for plugin in installed().files if plugin.digest in named]


def notices(plan: Plan) -> Iterator[str]:
    """What the user should hear about the plugins that a plan uses."""
    for provider in providers(plan):
        if said := notice(provider.api):
            yield f"plugin {provider}: {said}"
