r"""Which sharing helps, which harms, and what does a gate filter? A grid of cells, measured and compared, to a page.

Papers: the sharing unit of Zhao, Liu, Xiao, Lun, Lam (FERSNet, ICPR 2020, arXiv 2007.04514) against cross-stitch units
(Misra et al., CVPR 2016), NDDR (Gao et al., CVPR 2019), MTAN (Liu et al., CVPR 2019), PLE's extraction layer (Tang et
al., RecSys 2020), residual modules (Chen et al., Pattern Recognition 2021), hard sharing, hard sharing of the gated
network's size, its own ablations, and gates of ours that can remove.

    accelerate launch recipes/interference.py --config recipes/configs/interference_rendered.yaml --out runs/rendered
    accelerate launch recipes/interference.py --config recipes/configs/interference_ablations.yaml --out runs/ablations
    accelerate launch recipes/interference.py --config recipes/configs/interference_initialization.yaml --out runs/init
    accelerate launch recipes/interference.py --config recipes/configs/interference_filter.yaml --out runs/filter
    accelerate launch recipes/interference.py --config recipes/configs/interference_labels.yaml --out runs/labels
    accelerate launch recipes/interference.py --config recipes/configs/interference_fewlabels.yaml --out runs/fewlabels
    accelerate launch recipes/interference.py --config recipes/configs/interference_fer2013.yaml \
        --faces.path FER2013 --out runs/interference_fer2013

Cells are independent: on one process they run side by side, a core each; under ``accelerate launch --multi_gpu
--num_processes N`` every process takes the next free one, on a device of its own. ``--resume`` continues an interrupted
study and tries failed cells again; ``--preset smoke`` proves the installation. Each configuration says its expected
time; scores are in recipes/RESULTS.md, beside the command and the commit that gave them.
"""

import sys
from pathlib import Path

from synthmtl.cli import say_errors_in_one_line
from synthmtl.commands.options import recipe_options
from synthmtl.commands.study import say_results, study_parser
from synthmtl.study import StudyConfig, run_study


def main() -> int:
    # 1. Options: the preset's defaults, then the configuration file, then the command line.
    options = study_parser(sys.argv[1:], prog="interference.py").parse_args()
    config = recipe_options(StudyConfig, options)
    # 2. The cells: sharing unit x aggregator x condition (nuisance correlation, labels, schedule) x seed. Each trains
    #    recognition and synthesis, is measured, and lies in its own folder, where it is skipped once it is finished.
    # 3. Means, gains over single tasks, and every method against every other, paired by seed: results.json and .csv,
    #    the figures, report.html.
    results = run_study(config, Path(options.out), resume=options.resume, overwrite=options.overwrite)
    # 4. A line each method; the exit code is 1 if a cell failed.
    return say_results(options, results)


if __name__ == "__main__":
    sys.exit(say_errors_in_one_line(main))
