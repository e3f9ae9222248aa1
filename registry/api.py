"""The version of the plugin API, and which plugins this fw takes.

The API is `fw.registry` and of `fw.core` the modules `errors`, `types`, `job`, `randomness` and
`settings` and the folders `kinds`, `diffusion`, `features`, `learning`, `files`, `machine`,
`messages` and `testing`. It is what the built-ins use. API is raised when plugins would have to be
changed. A plugin states the version that it was made for in its module, `FW_API = 2`; without a
statement it is 1. What is deprecated goes on working for one release, with a warning: OLDEST is
then behind API.
"""

from __future__ import annotations

from types import ModuleType

from fw.registry.errors import UnfitPlugin

API = 2
OLDEST = 1
STATED = "FW_API"


def made_for(module: ModuleType) -> int:
    """The API version that a plugin was made for; UnfitPlugin if this fw does not have it."""
    version = getattr(module, STATED, 1)
    if type(version) is not int:
        raise UnfitPlugin(f"{STATED} is {version!r}, not a whole number such as {API}")
    if version > API:
        raise UnfitPlugin(
            f"it was made for plugin API {version}, and this fw has plugin API {API}: update fw"
        )
    if version < OLDEST:
        raise UnfitPlugin(
            f"it was made for plugin API {version}, and this fw has plugin API {API}: update the "
            "plugin (docs/plugins.md lists what changed)"
        )
    return version


def notice(version: int) -> str | None:
    """The warning about a plugin that works for the last time; None for any other."""
    if version == API:
        return None
    return (
        f"it was made for plugin API {version}; this fw has plugin API {API}, and the next will "
        "refuse the plugin"
    )
