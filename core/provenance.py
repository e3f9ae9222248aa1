"""Which plugins made a result: recorded in run.json and with the tracker, so that a number says what computed it."""

from __future__ import annotations

from collections.abc import Iterator

from fw.core.plan import Plan, components
from fw.registry import LocalPlugin, Provider, installed
from fw.registry.api import notice


def providers(plan: Plan) -> list[Provider]:
    """The plugins that a plan's components came from, nested components included, by name."""
    registry = installed()
    found = {registry.provider(type(component)) for stage in plan.stages.values() for component in components(stage)}
    return sorted((provider for provider in found if provider is not None), key=str)


def record(plan: Plan) -> dict[str, dict[str, str | int]]:
    """plugin -> its distribution, version, API version and the sha256 of its source."""
    return {provider.plugin: provider.facts() for provider in providers(plan)}


def tags(plan: Plan) -> dict[str, str]:
    """The record as tags of a tracked run."""
    return {
        f"fw.plugin.{plugin}": "{distribution} {version}, API {api}, sha256 {source}".format(**facts)
        for plugin, facts in record(plan).items()
    }


def files(plan: Plan) -> list[LocalPlugin]:
    """The local plugins that a plan uses."""
    used = {component.file_hash for stage in plan.stages.values() for component in components(stage)}
    return [plugin for plugin in installed().files if plugin.digest in used]


def notices(plan: Plan) -> Iterator[str]:
    """What the user should hear about the plugins that a plan uses."""
    for provider in providers(plan):
        if said := notice(provider.api):
            yield f"plugin {provider}: {said}"
