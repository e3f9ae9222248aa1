"""The command line of `fw schema`."""

from __future__ import annotations

from fw.core.cli.arguments import Plugins
from fw.core.cli.beginning import add_plugins


def schema(plugin: Plugins = None) -> None:
    """Print the JSON Schema of recipes, for editors."""
    import json

    from fw.core.recipe.model import Recipe

    add_plugins(plugin)
    print(json.dumps(Recipe.model_json_schema(), indent=1))
