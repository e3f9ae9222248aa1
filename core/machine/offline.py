"""No library of fw's opens a connection that nobody has asked for.

fw's own calls say so one by one (`local_files_only`, files in place of names). These switches are
for what libraries do besides, such as telemetry and update checks, and for the calls of plugins.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

HUB = {"HF_HUB_OFFLINE": "1"}
"""The switch that `fw fetch` leaves alone."""

QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "LIGHTLY_DID_VERSION_CHECK": "True",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
}

SWITCHES = (*HUB, *QUIET)

ours: set[str] = set()
"""The switches of this process that the user has not set."""


def stay_offline() -> None:
    """Set the switches that the environment does not set, before a library reads them. Processes
    that are started inherit them."""
    switch({**HUB, **QUIET})


def keep_quiet() -> None:
    """The same in a process that is not fw's own, such as a notebook's: what its user fetches from
    the hub is no matter of fw's."""
    switch(QUIET)


def switch(values: Mapping[str, str]) -> None:
    for name, value in values.items():
        if name not in os.environ:
            os.environ[name] = value
            ours.add(name)


def go_online() -> None:
    """Let the hub be asked, unless the user forbids it; before huggingface_hub is imported."""
    for name in ours & set(HUB):
        os.environ.pop(name, None)
    ours.difference_update(HUB)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # fw has one of its own
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
