"""Any timm model as an encoder, and a Gaussian mixture as an annotator."""

from fw.registry import Component, hookimpl
from fw_timm_gmm.gmm import GMM
from fw_timm_gmm.timm_encoder import Timm

FW_API = 2


@hookimpl
def fw_components() -> list[type[Component]]:
    return [GMM, Timm]
