"""Faces and labels: the batch, the table, readers, splits, leak guard."""

from synthmtl.data.batch import FaceBatch
from synthmtl.data.duplicates import Duplicates, near_duplicates
from synthmtl.data.images import read_face
from synthmtl.data.inspection import format_inspection, inspect_data
from synthmtl.data.leaks import Leak, leaks
from synthmtl.data.load import Splits, load_splits
from synthmtl.data.readers.fer2013 import read_fer2013
from synthmtl.data.readers.formats import FORMATS, detect_format
from synthmtl.data.readers.image_folder import read_image_folder
from synthmtl.data.splits import check_classes, split_by_subject, subject_folds
from synthmtl.data.table import FaceTable, classes_of
from synthmtl.data.writer import write_image_folder

__all__ = [
    "FORMATS",
    "Duplicates",
    "FaceBatch",
    "FaceTable",
    "Leak",
    "Splits",
    "check_classes",
    "classes_of",
    "detect_format",
    "format_inspection",
    "inspect_data",
    "leaks",
    "load_splits",
    "near_duplicates",
    "read_face",
    "read_fer2013",
    "read_image_folder",
    "split_by_subject",
    "subject_folds",
    "write_image_folder",
]
