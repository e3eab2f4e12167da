"""Networks: blocks and branches, and the systems assembled from them."""

from synthmtl.models.discriminator import PatchDiscriminator
from synthmtl.models.fersnet import FERSNET_SIZES, FERSNet
from synthmtl.models.recognizer import Recognizer, matched_recognizer

__all__ = ["FERSNET_SIZES", "FERSNet", "PatchDiscriminator", "Recognizer", "matched_recognizer"]
