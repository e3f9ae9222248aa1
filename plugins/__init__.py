"""The built-in components; they enter through the same hook as anybody's plugin."""

from collections.abc import Iterable

from fw.plugins.backbones.unet import UNet
from fw.plugins.encoders.classifier import Classifier
from fw.plugins.encoders.inception import Inception
from fw.plugins.encoders.pca import PCA
from fw.plugins.guidance.cfg import CFG
from fw.plugins.guidance.self_guidance import SelfGuidance
from fw.plugins.metrics.fd import FD
from fw.plugins.metrics.fid import FID
from fw.plugins.metrics.kid import KID
from fw.plugins.metrics.memorisation import Memorisation
from fw.plugins.metrics.prdc import PRDC
from fw.plugins.processes.ddpm import DDPM
from fw.plugins.processes.edm import EDM
from fw.plugins.processes.flow import Flow
from fw.plugins.samplers.ddim import DDIM
from fw.plugins.samplers.ddpm import Ancestral
from fw.plugins.samplers.dpmpp import DPMSolverPP
from fw.plugins.samplers.heun import Heun
from fw.registry import Component, hookimpl


@hookimpl
def fw_components() -> Iterable[type[Component]]:
    return [
        Ancestral,
        CFG,
        Classifier,
        DDIM,
        DDPM,
        DPMSolverPP,
        EDM,
        FD,
        FID,
        Flow,
        Heun,
        Inception,
        KID,
        Memorisation,
        PCA,
        PRDC,
        SelfGuidance,
        UNet,
    ]
