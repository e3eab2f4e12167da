"""Generative augmentation and selective feature sharing for facial expression recognition."""

__version__ = "0.1.0"
