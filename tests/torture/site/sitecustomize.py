"""Arms the trap in a process that was started with it; Python imports this before anything else."""

import os

if "FW_TORTURE" in os.environ:
    from torture.trap import arm

    arm(os.environ["FW_TORTURE"])
