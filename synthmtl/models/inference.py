"""Running trained networks over whole tables."""

import json
from pathlib import Path

import torch
from torch import Tensor, nn

from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError
from synthmtl.models.fersnet import FERSNet
from synthmtl.models.recognizer import Recognizer


@torch.no_grad()
def predict_table(
    model: nn.Module,
    table: FaceTable,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 256,
    mirror: bool = True,
    precision: torch.dtype | None = None,
) -> Tensor:
    """Probabilities (N, K), float32 on the CPU, of every face of a table, in its order.

    Args:
        model: a network with ``recognize``; it is put into evaluation mode and back.
        table: the faces, of the network's size and channels.
        device: where the network is.
        batch_size: faces at once.
        mirror: average with the prediction for the mirrored face.
        precision: dtype of an autocast, None for none.
    """
    training = model.training
    model.eval()
    out = []
    for start in range(0, len(table), batch_size):
        images = table.images[start : start + batch_size].to(device).float().div_(127.5).sub_(1.0)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast(torch.device(device).type, dtype=precision, enabled=precision is not None):
            probabilities = model.recognize(images)
            if mirror:
                probabilities = (probabilities + model.recognize(images.flip(-1))) / 2
        out.append(probabilities.float().cpu())
    model.train(training)
    return torch.cat(out) if out else torch.empty(0, len(table.classes))


def load_network(directory: str | Path, *, part: str = "model") -> FERSNet | Recognizer:
    """A network saved by ``save_pretrained``, or the named ``part`` of a finished run (``model`` or ``generator``).

    Raises:
        InputError: if there is no such network in ``directory``.
    """
    directory = Path(directory)
    for folder in (directory, directory / part):
        config = folder / "config.json"
        if config.is_file():
            break
    else:
        raise InputError(f"{directory}: no model here (config.json is missing); give a run's folder or a saved model")
    try:
        name = json.loads(config.read_text()).get("_class_name")
    except json.JSONDecodeError:
        raise InputError(f"{config}: not a model's configuration (broken JSON)") from None
    kinds = {"FERSNet": FERSNet, "Recognizer": Recognizer}
    if name not in kinds:
        raise InputError(f"{config}: describes {name!r}, not one of {', '.join(kinds)}")
    try:
        return kinds[name].from_pretrained(folder, low_cpu_mem_usage=False, use_safetensors=True).eval()
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"{folder}: cannot load the weights ({str(error).splitlines()[0]})") from None
