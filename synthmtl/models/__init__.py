"""Networks: blocks and branches, and the systems assembled from them."""

from synthmtl.models.compound import read_out
from synthmtl.models.denoiser import DIFFUSION_SIZES, DiffusionFERSNet
from synthmtl.models.discriminator import PatchDiscriminator
from synthmtl.models.emotion_gcn import EMOTION_GCN_SIZES, EmotionGCN
from synthmtl.models.fersnet import FERSNET_SIZES, FERSNet
from synthmtl.models.gcn import emotion_adjacency
from synthmtl.models.matching import match_capacity
from synthmtl.models.multitask import MultiTaskModel
from synthmtl.models.pipeline import ExpressionSynthesisPipeline
from synthmtl.models.recognizer import Recognizer
from synthmtl.models.residual_mtl import RESIDUAL_MTL_SIZES, ResidualMTL
from synthmtl.models.sjmt import SJMT, SJMT_SIZES

__all__ = [
    "DIFFUSION_SIZES",
    "EMOTION_GCN_SIZES",
    "FERSNET_SIZES",
    "RESIDUAL_MTL_SIZES",
    "SJMT",
    "SJMT_SIZES",
    "DiffusionFERSNet",
    "EmotionGCN",
    "ExpressionSynthesisPipeline",
    "FERSNet",
    "MultiTaskModel",
    "PatchDiscriminator",
    "Recognizer",
    "ResidualMTL",
    "emotion_adjacency",
    "match_capacity",
    "read_out",
]
