"""fw from Python: `load` a finished run and use what it has trained, or `run` a recipe.

from fw.core.api import load, run

done = load("runs/self_guidance/latest")
images = done.arm("self_1.5").sample(64, seed=0, condition=3)
"""

import warnings

from fw.core.api.arm import LoadedArm
from fw.core.api.denoiser import Denoiser
from fw.core.api.encoder import FeatureEncoder
from fw.core.api.loaded import LoadedRun, load
from fw.core.api.running import run
from fw.core.api.verdict import Verdict
from fw.core.machine.offline import keep_quiet

__all__ = ["Denoiser", "FeatureEncoder", "LoadedArm", "LoadedRun", "Verdict", "load", "run"]

# Libraries say this in notebooks without ipywidgets, of bars that fw does not draw.
warnings.filterwarnings("ignore", message="IProgress not found")

keep_quiet()
