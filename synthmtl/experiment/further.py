"""Tasks beside expression and synthesis in joint training: their loss, and how well the joint networks do them."""

from collections.abc import Mapping
from pathlib import Path

from synthmtl.data.mixture import usable_labels
from synthmtl.errors import InputError
from synthmtl.experiment.stages import Job
from synthmtl.losses import HeterogeneousLoss, task_losses
from synthmtl.metrics.multitask import task_intervals
from synthmtl.models import FERSNet
from synthmtl.models.inference import load_network, predict_tasks


def check_labels(job: Job) -> None:
    """Check that the training faces carry labels of every further task, and the other splits some to be scored by.

    Raises:
        InputError: naming the task or the split that lacks them.
    """
    for name in ("validation", "test"):
        if not bool((getattr(job.splits, name).expression >= 0).any()):
            raise InputError(
                f"{job.config.faces.path or 'rendered faces'}: no face of the {name} split has an expression, so there "
                "is nothing to score by: add some that have, or leave the split out, and it is split off the training "
                "faces"
            )
    carried = [task for task, count in usable_labels(job.train).items() if count]
    for task in job.config.model.tasks:
        if task != "synthesis" and task not in carried:
            raise InputError(f"--model.tasks: the training faces carry no {task}, only {', '.join(carried)}")


def further_loss(job: Job, model: FERSNet) -> HeterogeneousLoss | None:
    """The loss of a joint network's further tasks, each by the mean over its labels; None without any."""
    if not model.heads:
        return None
    losses = task_losses(model.heads, job.train, label_smoothing=job.config.label_smoothing)
    weights = {task: weight for task, weight in job.config.model.task_weights.items() if task in losses}
    return HeterogeneousLoss(losses, weights, normalization="per_task")


def further_scores(job: Job, bases: Mapping[tuple[str, int], Path]) -> dict[str, dict]:
    """Headline scores on the test split of every task that the jointly trained networks predict.

    Args:
        bases: (network, seed) → its folder.

    Returns:
        {network: {task: {``metric``, ``value``, ``ci95``, ``per_seed``, ``faces``}}}; empty without further tasks.
    """
    if not set(job.config.model.tasks) - {"expression", "synthesis"}:
        return {}
    outputs: dict[str, list] = {}
    for (name, _), base in bases.items():
        network = load_network(base).to(job.accelerator.device)
        predicted = predict_tasks(network, job.splits.test, device=job.accelerator.device, mirror=job.config.mirror)
        outputs.setdefault(name, []).append(predicted)
    return {
        name: {task: score.as_dict() for task, score in task_intervals(each, job.splits.test).items()}
        for name, each in outputs.items()
    }
