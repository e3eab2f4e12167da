r"""FERSNet with balancing: every method, every seed its own generator, to a report.

Paper: Zhao, Liu, Xiao, Lun, Lam: Deep Multi-task Learning for Facial Expression Recognition and Synthesis Based on
Selective Feature Sharing. ICPR 2020, arXiv 2007.04514.

    accelerate launch recipes/fersnet.py --out runs/rendered --config recipes/configs/rendered_cpu.yaml
    accelerate launch recipes/fersnet.py --out runs/fer2013 --config recipes/configs/fer2013_cpu.yaml \
        --faces.path FER2013
    accelerate launch recipes/fersnet.py --out runs/ckplus --config recipes/configs/ckplus_published.yaml \
        --faces.path CKPLUS

A diffusion model in place of the decoder (``--model.generator diffusion``) shares features the same way:
recipes/diffusion.py, which measures more of it.

On a machine without GPU, several processes need
``accelerate launch --multi_gpu --num_processes 2 recipes/fersnet.py ...``: accelerate starts a single one otherwise.
``--resume`` continues an interrupted run; ``--preset smoke`` proves the installation. Times and scores of each
configuration are in recipes/RESULTS.md, beside the command and the commit that gave them.
"""

import sys
from pathlib import Path

from synthmtl.cli import say_errors_in_one_line
from synthmtl.commands.main_job import main_job_config, main_job_parser, print_scores
from synthmtl.experiment import run_main_job


def main() -> None:
    # 1. Options: the preset's defaults, then the configuration file, then the command line.
    options = main_job_parser(sys.argv[1:], prog="fersnet.py").parse_args()
    config = main_job_config(options)
    # 2. The job: faces, guide and judge, joint training, balancing, every method by every seed, the report.
    #    Each part lies in its own folder below --out and is skipped once it is finished.
    report = run_main_job(config, Path(options.out), resume=options.resume, overwrite=options.overwrite)
    # 3. The scores on the test split; everything else is in report.html and report.json.
    print_scores(report, Path(options.out))


if __name__ == "__main__":
    sys.exit(say_errors_in_one_line(main))
