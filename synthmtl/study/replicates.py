"""Bootstrap replicates of what cells predicted: the same seeds, test people and held-out people for all methods."""

import numpy as np
from torch import Tensor

from synthmtl.metrics.multitask import HEADLINES, headline_replicates
from synthmtl.metrics.recognition import labelled_predictions, of_labelled, resampled_scores
from synthmtl.study.job import StudyJob
from synthmtl.study.measures import SCORES
from synthmtl.study.series import SAMPLES, drawn_seeds

Arrays = list[list[dict[str, Tensor]]]
"""By method and by seed, what ``cell_arrays`` gives of a finished cell."""


def replicates_of_editing(job: StudyJob, arrays: Arrays) -> dict[str, np.ndarray]:
    """Metric → replicates (M, samples) of scores and of the synthesis error, seeds and people drawn."""
    scores = _scores(job, [[found["test"] for found in method] for method in arrays])
    errors = np.stack([[found["synthesis_error"].double().numpy() for found in method] for method in arrays])
    return scores | {"synthesis_error": _errors(job, errors)}


def replicates_of_heads(job: StudyJob, arrays: Arrays) -> dict[str, np.ndarray]:
    """Metric → replicates (M, samples) of each task's scores, seeds and people drawn; undefined ones left out."""
    methods = [[{task: found[f"test/{task}"] for task in job.config.tasks} for found in method] for method in arrays]
    found = headline_replicates(methods, job.splits.test, samples=SAMPLES)
    scores = {HEADLINES[task]: values for task, values in found.items() if not np.isnan(values).all()}
    if "expression" in job.config.tasks:
        scores |= _scores(job, [[found["test/expression"] for found in method] for method in arrays])
    return scores


def _scores(job: StudyJob, probabilities: list[list[Tensor]]) -> dict[str, np.ndarray]:
    test = job.splits.test
    predictions = [
        np.stack([labelled_predictions(one, test.expression, test.classes)[0][0] for one in method])
        for method in probabilities
    ]
    labelled = test.expression[test.expression >= 0].numpy()
    people = of_labelled(test.subject, test.expression)
    given = np.stack(predictions), labelled, test.classes
    return resampled_scores(*given, subject=people, metrics=SCORES, samples=SAMPLES, seed=0)


def _errors(job: StudyJob, errors: np.ndarray) -> np.ndarray:
    """Replicates (M, samples) of the mean of ``errors`` (M, S, N): people and seeds are resampled."""
    people = job.held_out.faces.subject.unique(return_inverse=True)[1].numpy()
    one_hot = np.eye(people.max() + 1)[people]
    drawn = np.random.default_rng(2).multinomial(len(one_hot.T), [1 / len(one_hot.T)] * len(one_hot.T), SAMPLES)
    means = (errors @ one_hot @ drawn.T) / (one_hot.sum(0) @ drawn.T)
    return np.take_along_axis(means, drawn_seeds(errors.shape[1]).T[None], axis=1).mean(1)
