"""The built-in components; they enter through the same hook as anybody's plugin."""

from collections.abc import Iterable

from fw.plugins.annotators.features import Representation
from fw.plugins.annotators.kmeans import KMeans
from fw.plugins.annotators.knn import KNN
from fw.plugins.annotators.labels import Labels
from fw.plugins.annotators.online import OnlineClusters
from fw.plugins.annotators.permuted import Permuted
from fw.plugins.annotators.random import Random
from fw.plugins.annotators.retrieval import Retrieval
from fw.plugins.annotators.sinkhorn import Sinkhorn
from fw.plugins.autoencoders.kl import KL
from fw.plugins.autoencoders.rae import RAE
from fw.plugins.autoencoders.tiny import Tiny
from fw.plugins.backbones.ddpmpp import DDPMPP
from fw.plugins.backbones.diffusers_folder import DiffusersFolder
from fw.plugins.backbones.dit import DiT
from fw.plugins.backbones.unet import UNet
from fw.plugins.datasets.cifar10 import Cifar10
from fw.plugins.datasets.digits import Digits
from fw.plugins.datasets.hub import Hub
from fw.plugins.datasets.image_folder import ImageFolder
from fw.plugins.datasets.shapes import Shapes
from fw.plugins.encoders.byol import BYOL
from fw.plugins.encoders.classifier import Classifier
from fw.plugins.encoders.clip import CLIP
from fw.plugins.encoders.diffusion import Diffusion
from fw.plugins.encoders.diffusion_selected import DiffusionSelected
from fw.plugins.encoders.dino import Dino
from fw.plugins.encoders.dinov1 import DINOv1
from fw.plugins.encoders.dinov2 import DINOv2
from fw.plugins.encoders.dinov3 import DINOv3
from fw.plugins.encoders.dreamteacher import DreamTeacher
from fw.plugins.encoders.inception import Inception
from fw.plugins.encoders.mae import MAE
from fw.plugins.encoders.moco import MoCo
from fw.plugins.encoders.pca import PCA
from fw.plugins.encoders.pixels import Pixels
from fw.plugins.encoders.repfusion import RepFusion
from fw.plugins.encoders.repfusion_policy import RepFusionPolicy
from fw.plugins.encoders.simclr import SimCLR
from fw.plugins.encoders.swav import SwAV
from fw.plugins.guidance.apg import APG
from fw.plugins.guidance.autoguidance import AutoGuidance
from fw.plugins.guidance.cfg import CFG
from fw.plugins.guidance.classifier import ClassifierGuidance
from fw.plugins.guidance.joint_features import JointFeatures
from fw.plugins.guidance.negative import Negative
from fw.plugins.guidance.pag import PAG
from fw.plugins.guidance.rcg import RCG
from fw.plugins.guidance.rescale import Rescale
from fw.plugins.guidance.sag import SAG
from fw.plugins.guidance.seg import SEG
from fw.plugins.guidance.self_guidance import SelfGuidance
from fw.plugins.joint.hybvit import HybViT
from fw.plugins.joint.jdm import JDM
from fw.plugins.metrics.agreement import Agreement
from fw.plugins.metrics.authpct import AuthPct
from fw.plugins.metrics.cmmd import CMMD
from fw.plugins.metrics.fd import FD
from fw.plugins.metrics.fd_dinov2 import FDDINOv2
from fw.plugins.metrics.fid import FID
from fw.plugins.metrics.fld import FLD
from fw.plugins.metrics.inception_score import InceptionScore
from fw.plugins.metrics.kid import KID
from fw.plugins.metrics.memorisation import Memorisation
from fw.plugins.metrics.mind import MIND
from fw.plugins.metrics.prdc import PRDC
from fw.plugins.objectives.contrastive import Contrastive
from fw.plugins.objectives.dispersive import Dispersive
from fw.plugins.objectives.repa import REPA
from fw.plugins.priors.rdm import RDM
from fw.plugins.priors.uniform import Uniform
from fw.plugins.probes.attention import AttentionProbe
from fw.plugins.probes.clusters import Clusters
from fw.plugins.probes.diffusion_classifier import DiffusionClassifier
from fw.plugins.probes.knn import NearestNeighbours
from fw.plugins.probes.linear import LinearProbe
from fw.plugins.probes.recognise import Recognise
from fw.plugins.processes.ddpm import DDPM
from fw.plugins.processes.edm import EDM
from fw.plugins.processes.flow import Flow
from fw.plugins.samplers.ddim import DDIM
from fw.plugins.samplers.ddpm import Ancestral
from fw.plugins.samplers.dpmpp import DPMSolverPP
from fw.plugins.samplers.heun import Heun
from fw.plugins.trackers.mlflow import MLflow
from fw.registry import Component, hookimpl

FW_API = 2


@hookimpl
def fw_components() -> Iterable[type[Component]]:
    return [
        APG,
        Agreement,
        Ancestral,
        AttentionProbe,
        AuthPct,
        AutoGuidance,
        BYOL,
        CFG,
        CLIP,
        CMMD,
        Cifar10,
        Classifier,
        ClassifierGuidance,
        Clusters,
        Contrastive,
        DDIM,
        DDPM,
        DDPMPP,
        DINOv1,
        DINOv2,
        DINOv3,
        DPMSolverPP,
        DiT,
        DiffusersFolder,
        Diffusion,
        DiffusionClassifier,
        DiffusionSelected,
        Digits,
        Dino,
        Dispersive,
        DreamTeacher,
        EDM,
        FD,
        FDDINOv2,
        FID,
        FLD,
        Flow,
        Heun,
        Hub,
        HybViT,
        ImageFolder,
        Inception,
        InceptionScore,
        JDM,
        JointFeatures,
        KID,
        KL,
        KMeans,
        KNN,
        Labels,
        LinearProbe,
        MAE,
        MLflow,
        MIND,
        Memorisation,
        MoCo,
        NearestNeighbours,
        Negative,
        OnlineClusters,
        PAG,
        PCA,
        PRDC,
        Permuted,
        Pixels,
        RAE,
        RCG,
        RDM,
        REPA,
        Random,
        Recognise,
        RepFusion,
        RepFusionPolicy,
        Representation,
        Rescale,
        Retrieval,
        SAG,
        SEG,
        SelfGuidance,
        Shapes,
        SimCLR,
        Sinkhorn,
        SwAV,
        Tiny,
        UNet,
        Uniform,
    ]
