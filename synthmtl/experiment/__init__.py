"""The main job: its methods, their training cell by cell, and the report."""

from synthmtl.experiment.config import MainJobConfig, preset
from synthmtl.experiment.main_job import run_main_job
from synthmtl.experiment.methods import METHODS, Method
from synthmtl.experiment.workspace import check_file, check_out, claim, describe_data, open_out, write_json

__all__ = [
    "METHODS",
    "MainJobConfig",
    "Method",
    "check_file",
    "check_out",
    "claim",
    "describe_data",
    "open_out",
    "preset",
    "run_main_job",
    "write_json",
]
