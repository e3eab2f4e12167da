r"""FERSNet with a diffusion model in place of the decoder: balancing, few sampling steps, and the decoder beside it.

The denoiser (a diffusers UNet) is told the target and, at each resolution, what the gates let of the source into the
synthesis branch; recognition reads the clean face and shares features as in recipes/fersnet.py.

    accelerate launch recipes/diffusion.py --config recipes/configs/diffusion_rendered_cpu.yaml --out runs/diffusion
    accelerate launch recipes/diffusion.py --config recipes/configs/diffusion_fer2013_cpu.yaml --faces.path FER2013 \
        --out runs/diffusion_fer2013
    accelerate launch recipes/diffusion.py --config recipes/configs/diffusion_gpu.yaml --faces.path AFFECTNET \
        --out runs/diffusion_gpu

With ``--against runs/rendered``, a finished run of recipes/fersnet.py on the same faces, both quality cards and what
either generator does for recognition are written side by side. ``--out`` holds what a run of recipes/fersnet.py
leaves, and few_steps.json, few_steps.png and against.json. ``--resume`` continues, ``--preset smoke`` proves the
installation. Times and scores are in recipes/RESULTS.md.
"""

import sys
from pathlib import Path

from accelerate import PartialState

from synthmtl.cli import say_errors_in_one_line
from synthmtl.commands.main_job import main_job_config, main_job_parser, print_scores
from synthmtl.commands.options import generator_of, instantiate
from synthmtl.errors import InputError
from synthmtl.experiment import run_main_job, write_json
from synthmtl.experiment.few_steps import FewStepsOptions, measure_few_steps
from synthmtl.experiment.stages import Job, load_data
from synthmtl.experiment.versus import check_rival, compare_runs, format_comparison, open_rival
from synthmtl.metrics.features import feature_extractor
from synthmtl.models.inference import load_network
from synthmtl.report.sampling_figure import few_steps_figure
from synthmtl.training import build_accelerator


def main() -> None:
    # 1. Options: those of the main job with this generator, of the comparison of solvers, and another run.
    argv = sys.argv[1:]
    if generator_of(argv, "diffusion") != "diffusion":
        raise InputError("recipes/diffusion.py is for --model.generator diffusion: for gan take recipes/fersnet.py")
    parser = main_job_parser(["--model.generator", "diffusion", *argv], prog="diffusion.py")
    parser.add_class_arguments(FewStepsOptions, "few_steps")
    parser.add_argument("--against", type=str | None, default=None, help="finished run with the generator gan")
    options = parser.parse_args(argv)
    config, out = main_job_config(options), Path(options.out)
    solvers = instantiate(FewStepsOptions, options.few_steps)
    solvers.plan(config.model.prediction, config.balance.sampling.guidance_scale)
    if solvers.features is not None:
        feature_extractor(solvers.features)
    if options.against is not None:
        check_rival(config.faces, Path(options.against))
        if config.faces.path is not None:
            # Photographs may have changed since the other run, which would show after the training only.
            check_rival(config.faces, Path(options.against), load_data(config.faces)[0].tables())
    # 2. The job of recipes/fersnet.py; what is finished is skipped.
    report = run_main_job(config, out, resume=options.resume, overwrite=options.overwrite)
    print_scores(report)
    if not PartialState().is_main_process:
        return
    # 3. How few evaluations of the denoiser will do.
    splits, render = load_data(config.faces)
    job = Job(config, out, splits, build_accelerator(precision=config.precision), render)
    device = job.accelerator.device
    generator, judge = (load_network(out / name).to(device) for name in ("generator", "judge"))
    found = measure_few_steps(job, generator, judge, solvers)
    write_json(out / "few_steps.json", found)
    few_steps_figure(found["rows"], found["features"], out / "few_steps.png")
    for row in found["rows"]:
        print(
            f"{row['solver']:5s} {row['evaluations']:3d} evaluations: KID {row['kid']:.4f} "
            f"[{row['ci95'][0]:.4f}, {row['ci95'][1]:.4f}], target seen {row['agreement']:.3f}, "
            f"{1000 * row['seconds']:.1f} ms a face"
        )
    # 4. The other generator, on the same faces.
    if options.against is not None:
        compared = compare_runs(job, open_rival(job, Path(options.against)))
        write_json(out / "against.json", compared)
        print(format_comparison(compared))
    print(f"report: {out / 'report.html'}")


if __name__ == "__main__":
    sys.exit(say_errors_in_one_line(main))
