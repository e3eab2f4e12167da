"""Rendered faces, the embedded data: anatomy, head, identities, renderer, data set."""

from synthmtl.faces.dataset import (
    LONG_TAIL,
    RenderConfig,
    counterparts,
    render_faces,
    render_splits,
    split_configs,
)

__all__ = ["LONG_TAIL", "RenderConfig", "counterparts", "render_faces", "render_splits", "split_configs"]
