"""Networks: blocks and branches, and the systems assembled from them."""

from typing import TYPE_CHECKING, Any

from synthmtl.models.compound import read_out
from synthmtl.models.denoiser import DIFFUSION_SIZES, DiffusionFERSNet
from synthmtl.models.discriminator import PatchDiscriminator
from synthmtl.models.emotion_gcn import EMOTION_GCN_SIZES, EmotionGCN
from synthmtl.models.fersnet import FERSNET_SIZES, FERSNet
from synthmtl.models.gcn import emotion_adjacency
from synthmtl.models.matching import match_capacity
from synthmtl.models.multitask import MultiTaskModel
from synthmtl.models.recognizer import Recognizer
from synthmtl.models.residual_mtl import RESIDUAL_MTL_SIZES, ResidualMTL
from synthmtl.models.sjmt import SJMT, SJMT_SIZES

if TYPE_CHECKING:
    from synthmtl.models.pipeline import ExpressionSynthesisPipeline

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


def __getattr__(name: str) -> Any:
    """The pipeline when it is first named: with it come those of diffusers, which only sampling by one needs."""
    if name != "ExpressionSynthesisPipeline":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from synthmtl.models.pipeline import ExpressionSynthesisPipeline

    return ExpressionSynthesisPipeline
