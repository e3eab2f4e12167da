"""What few sampling steps cost: distance to real faces, agreement and time by evaluations of the denoiser."""

import dataclasses
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from synthmtl.balance.synthesize import edit_faces
from synthmtl.data import FaceTable
from synthmtl.data.randomness import derive_seed
from synthmtl.errors import InputError
from synthmtl.experiment.quality import drawn_rows, usual_features
from synthmtl.experiment.stages import Job, predict
from synthmtl.experiment.workspace import Unit
from synthmtl.metrics.features import FeatureExtractor, extract_features, feature_extractor
from synthmtl.metrics.generation import kernel_distance
from synthmtl.models import DiffusionFERSNet, Recognizer
from synthmtl.models.noise import MAX_STEPS, SOLVERS

_BATCH = 64


@dataclass
class FewStepsOptions:
    """How solvers are compared.

    Attributes:
        evaluations: of the denoiser for one face; with guidance a step takes two.
        solvers: by name, the quick one first; null = all that go with the network's prediction.
        features: that the distance is measured in, as for ``synthmtl score``; null = those of the quality card.
        quick: evaluations of the first solver that are held against ``thorough`` of the last.
        thorough: evaluations of the last solver.
    """

    evaluations: list[int] = field(default_factory=lambda: [1, 2, 3, 4, 6, 8, 12, 16, 25, 50])
    solvers: list[str] | None = None
    features: str | None = None
    quick: int = 8
    thorough: int = 50

    def plan(self, prediction: str, guidance_scale: float = 1.0) -> list[tuple[str, int]]:
        """Solver and evaluations of each row, those that a whole number of steps takes.

        Raises:
            InputError: if there is no such solver, or a number of evaluations is out of range.
        """
        known = SOLVERS[prediction]
        solvers = list(known) if self.solvers is None else self.solvers
        for name in solvers:
            if name not in known:
                raise InputError(f"--few_steps.solvers has {name!r}: {prediction} prediction takes {', '.join(known)}")
        wrong = [number for number in self.evaluations if not 1 <= number <= MAX_STEPS]
        if wrong or not self.evaluations or not solvers:
            raise InputError(f"--few_steps.evaluations must be numbers from 1 to {MAX_STEPS}, not {self.evaluations}")
        each = evaluations_of_a_step(guidance_scale)
        numbers = sorted({number // each * each for number in self.evaluations} - {0})
        return [(solver, number) for solver in solvers for number in numbers]


def evaluations_of_a_step(guidance_scale: float) -> int:
    """How often the denoiser is asked in a step of the solver."""
    return 1 if guidance_scale == 1 else 2


def measure_few_steps(job: Job, generator: DiffusionFERSNet, judge: Recognizer, options: FewStepsOptions) -> dict:
    """Edit validation faces by every solver with every number of evaluations, from the same noise.

    Each face is edited once, to another expression than its own, evenly over expressions. KID is that between the
    edited faces and the unedited ones, so that it also counts what an edit should change; it is 0 for no difference.

    Args:
        job: the finished run. Rows are kept in ``few_steps`` below its folder and not measured again, unless in other
            features.
        generator: its synthesis network.
        judge: says whether the target is seen; it did not train with the generator.
        options: what to compare.

    Returns:
        ``features``, ``faces``, ``guidance_scale``, ``rows`` [{solver, steps, evaluations, kid, ci95, agreement,
        seconds}] with the seconds of a face, and ``verdict``: {quick, thorough, times_faster, kid_within}, or None if
        one of the two was not measured. ``kid_within``: the quick row's KID is not above the thorough row's interval.

    Raises:
        InputError: as :meth:`FewStepsOptions.plan` and :func:`feature_extractor`.
    """
    spread, sampling = job.config.balance.spread, job.config.balance.sampling
    per_step = evaluations_of_a_step(sampling.guidance_scale)
    features = options.features or usual_features(job)
    extractor = feature_extractor(features)
    faces = _labelled(job)
    target = _other_expressions(faces)
    real, rows = None, []
    for solver, evaluations in options.plan(generator.config.prediction, sampling.guidance_scale):
        unit = Unit(job.out, f"few_steps/{solver}-{evaluations}")
        if unit.result is None or unit.result.get("features") != features:
            if real is None:
                real = _features(job, extractor, faces.images)
            steps = evaluations // per_step
            eta = sampling.eta if solver == "ddim" else 0.0
            here = dataclasses.replace(sampling, steps=steps, solver=solver, eta=eta)
            started = time.perf_counter()
            edited = torch.cat(
                [
                    edit_faces(
                        generator, faces.images[part], target[part], part.tolist(), spread=spread, sampling=here
                    )[0]
                    for part in torch.arange(len(faces)).split(_BATCH)
                ]
            )
            seconds = (time.perf_counter() - started) / len(faces)
            half = len(faces) // 2
            distance = kernel_distance(real, _features(job, extractor, edited), subset_size=half)
            seen = predict(job, judge, faces.replace(images=edited)).argmax(1)
            unit.finish(
                {
                    "solver": solver,
                    "steps": steps,
                    "evaluations": evaluations,
                    "features": features,
                    "kid": distance.value,
                    "ci95": distance.ci95,
                    "agreement": float((seen == target).double().mean()),
                    "seconds": seconds,
                }
            )
        rows.append({name: value for name, value in unit.finished.items() if name != "features"})
    return {
        "features": extractor.name,
        "faces": len(faces),
        "guidance_scale": sampling.guidance_scale,
        "rows": rows,
        "verdict": _verdict(rows, options),
    }


def _labelled(job: Job) -> FaceTable:
    table = job.splits.validation
    table = table.select(torch.where(table.expression >= 0)[0])
    return table.select(drawn_rows(job, "few steps", table, []))


def _other_expressions(table: FaceTable) -> Tensor:
    """(N,) int64, each other expression equally often for every expression."""
    classes = len(table.classes)
    generator = torch.Generator().manual_seed(derive_seed("few-steps"))
    target = torch.empty_like(table.expression)
    for k in range(classes):
        own = torch.where(table.expression == k)[0]
        turn = torch.randperm(len(own), generator=generator) % (classes - 1)
        target[own] = (k + 1 + turn) % classes
    return target


def _features(job: Job, extractor: FeatureExtractor, images: Tensor) -> Tensor:
    return extract_features(extractor, images, device=job.accelerator.device)


def _verdict(rows: list[dict], options: FewStepsOptions) -> dict | None:
    if not rows:
        return None
    first, last = rows[0]["solver"], rows[-1]["solver"]
    quick = next((row for row in rows if (row["solver"], row["evaluations"]) == (first, options.quick)), None)
    thorough = next((row for row in rows if (row["solver"], row["evaluations"]) == (last, options.thorough)), None)
    if quick is None or thorough is None:
        return None
    return {
        "quick": f"{first}, {options.quick} evaluations",
        "thorough": f"{last}, {options.thorough} evaluations",
        "times_faster": thorough["seconds"] / quick["seconds"],
        "kid_within": quick["kid"] <= thorough["ci95"][1],
    }
