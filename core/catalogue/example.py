"""Make an instance of a component from its class alone, to say what it requires and to check it."""

from __future__ import annotations

from pydantic import ValidationError

from fw.registry import Component, Registry
from fw.registry.errors import in_one_line


class NoExample(Exception):
    """No instance can be made because a field has no example; the message says which."""


class ExampleRefused(NoExample):
    """A component refuses its own defaults and examples."""


def example(
    component: type[Component], registry: Registry | None = None, quick: bool = False
) -> Component:
    """The component with its defaults, and with the first of `Field(examples=[...])` where a field
    is required.

    With `quick` it takes the first example of every field that has any, such as fewer training
    steps. Raises NoExample where a required field has no example, and ExampleRefused where the
    component raises.
    """
    required = {name: info for name, info in component.model_fields.items() if info.is_required()}
    if missing := [name for name, info in required.items() if not info.examples]:
        raise NoExample(
            f"no example of the required {', '.join(missing)}; give one with Field(examples=[...])"
        )
    fields = component.model_fields if quick else required
    values = {name: info.examples[0] for name, info in fields.items() if info.examples}
    try:
        return component.model_validate(values, context={"registry": registry})
    except ValidationError as error:
        faults = [": ".join([*map(str, fault["loc"]), fault["msg"]]) for fault in error.errors()]
        raise ExampleRefused(
            f"it refuses its own defaults or examples: {'; '.join(faults)}"
        ) from error
    except Exception as error:
        raise ExampleRefused(
            f"it cannot be made from its defaults: {in_one_line(error)}"
        ) from error
