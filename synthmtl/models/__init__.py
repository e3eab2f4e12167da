"""Networks: blocks and branches, and the systems assembled from them."""

from synthmtl.models.discriminator import PatchDiscriminator
from synthmtl.models.fersnet import FERSNET_SIZES, FERSNet
from synthmtl.models.matching import match_capacity
from synthmtl.models.recognizer import Recognizer

__all__ = ["FERSNET_SIZES", "FERSNet", "PatchDiscriminator", "Recognizer", "match_capacity"]
