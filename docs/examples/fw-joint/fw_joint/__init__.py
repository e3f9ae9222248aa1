"""A joint model and guidance by its own classifier."""

from fw.registry import Component, hookimpl
from fw_joint.joint_unet import JointUNet
from fw_joint.own_classifier import OwnClassifier

FW_API = 2


@hookimpl
def fw_components() -> list[type[Component]]:
    return [JointUNet, OwnClassifier]
