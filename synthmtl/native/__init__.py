"""Functions in C++, for what PyTorch does in too many passes over the features."""

from synthmtl.native.build import load_functions

__all__ = ["load_functions"]
