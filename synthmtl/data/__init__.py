"""Faces and labels: the batch, the table, readers, splits, leak guard."""

from synthmtl.data.batch import FaceBatch
from synthmtl.data.table import FaceTable, classes_of

__all__ = ["FaceBatch", "FaceTable", "classes_of"]
