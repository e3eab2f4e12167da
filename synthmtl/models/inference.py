"""Running trained networks over whole tables."""

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synthmtl.data.augmentation import flip_landmarks
from synthmtl.data.pixels import to_unit
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError
from synthmtl.files import flush_file, plain_errors
from synthmtl.labels import EXPRESSIONS, ordered_classes
from synthmtl.models.blocks import evaluating
from synthmtl.models.denoiser import DiffusionFERSNet
from synthmtl.models.emotion_gcn import EmotionGCN
from synthmtl.models.fersnet import FERSNet
from synthmtl.models.multitask import MultiTaskModel
from synthmtl.models.recognizer import Recognizer
from synthmtl.models.residual_mtl import ResidualMTL
from synthmtl.models.sjmt import SJMT
from synthmtl.progress import shown

KINDS = {kind.__name__: kind for kind in (FERSNet, DiffusionFERSNet, Recognizer, ResidualMTL, SJMT, EmotionGCN)}
"""Networks by the name that their configuration carries."""

Network = FERSNet | DiffusionFERSNet | Recognizer | MultiTaskModel
"""Any of :data:`KINDS`."""

CONFIG = "config.json"


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
        model: a network with ``recognize``; it is put into evaluation mode and back, module by module.
        table: the faces, of the network's size and channels.
        device: where the network is.
        batch_size: faces at once.
        mirror: average with the prediction for the mirrored face.
        precision: dtype of an autocast, None for none.
    """
    recognize: Callable[[Tensor], Tensor] = model.recognize  # type: ignore[assignment]
    out = []
    with _batches(model, table, device, batch_size, precision) as batches:
        for images in batches:
            probabilities = mirror_averaged(recognize, images) if mirror else recognize(images)
            out.append(probabilities.float().cpu())
    return torch.cat(out) if out else torch.empty(0, len(table.classes))


@torch.no_grad()
def mirror_averaged(recognize: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Probabilities (B, K) of faces (B, C, H, W), each the mean of those of the face and of its mirror image."""
    return (recognize(images) + recognize(images.flip(-1))) / 2


@torch.no_grad()
def predict_tasks(
    model: MultiTaskModel | FERSNet,
    table: FaceTable,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 256,
    mirror: bool = True,
    precision: torch.dtype | None = None,
) -> dict[str, Tensor]:
    """What a multi-task network says of every face of a table, in its order: ``model.predict``, float32 on the CPU.

    Args:
        model: the network; it is put into evaluation mode and back, module by module.
        table: at least one face, of the network's size and channels.
        device: where the network is.
        batch_size: faces at once.
        mirror: average with the prediction for the mirrored face, whose landmarks are mirrored back.
        precision: dtype of an autocast, None for none.

    Returns:
        (N, ...) by task.

    Raises:
        InputError: if the table is empty.
    """
    if not len(table):
        raise InputError("there are no faces to predict: the table is empty")
    out: dict[str, list[Tensor]] = {task: [] for task in model.tasks}
    with _batches(model, table, device, batch_size, precision) as batches:
        for images in batches:
            predicted = model.predict(images)
            if mirror:
                for task, other in model.predict(images.flip(-1)).items():
                    other = flip_landmarks(other) if task == "landmarks" else other
                    predicted[task] = (predicted[task] + other) / 2
            for task, values in predicted.items():
                out[task].append(values.float().cpu())
    return {task: torch.cat(parts) for task, parts in out.items()}


_VIEWS = ((0.06, 0.0, 1.0), (-0.06, 0.0, 1.0), (0.0, 0.06, 1.0), (0.0, -0.06, 1.0), (0.0, 0.0, 1.12), (0.0, 0.0, 0.9))
"""Shift right, shift down (half sides of the picture) and size of the window through which a face is seen again."""


@torch.no_grad()
def agreed_landmarks(
    model: MultiTaskModel, table: FaceTable, *, device: torch.device | str = "cpu", batch_size: int = 256
) -> tuple[Tensor, Tensor]:
    """Landmarks as several views of each face agree on them, and how well they do.

    A network sees every face as it is, mirrored, and through windows that are shifted or of another size. Where it
    knows what it sees, its landmarks stay on their places of the face.

    Args:
        model: a network that predicts landmarks; it is put into evaluation mode and back, module by module.
        table: at least one face, of the network's size and channels.
        device: where the network is.
        batch_size: faces at once.

    Returns:
        (N, 68, 2) mean over the views, in [0, 1] of the picture; (N,) mean distance from it, in distances between
        the centers of the eyes.

    Raises:
        InputError: if the table is empty.
    """
    if not len(table):
        raise InputError("there are no faces to predict: the table is empty")
    means, spreads = [], []
    with _batches(model, table, device, batch_size, None) as batches:
        for images in batches:
            seen = [model.predict(images)["landmarks"], flip_landmarks(model.predict(images.flip(-1))["landmarks"])]
            for right, down, size in _VIEWS:
                theta = torch.tensor([[size, 0.0, right], [0.0, size, down]], device=images.device)
                grid = F.affine_grid(theta.expand(len(images), 2, 3), list(images.shape), align_corners=False)
                view = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
                places = 2 * model.predict(view)["landmarks"] - 1
                seen.append((size * places + theta[:, 2] + 1) / 2)
            views = torch.stack(seen).float()
            mean = views.mean(0)
            eyes = (mean[:, 36:42].mean(1) - mean[:, 42:48].mean(1)).norm(dim=1).clamp(min=1e-6)
            means.append(mean.cpu())
            spreads.append(((views - mean).norm(dim=3).mean((0, 2)) / eyes).cpu())
    return torch.cat(means), torch.cat(spreads)


def supply_labels(table: FaceTable, network: Network, kind: str, *, device: torch.device | str = "cpu") -> FaceTable:
    """A table in which ``network`` has filled in ``kind`` for faces that carry nothing of it; others stay as they are.

    What it says are predictions: good to tell a generator, no labels to learn or to score by.

    Args:
        table: faces of the network's size and channels.
        network: predicts ``kind``.
        kind: ``action_units`` or ``valence_arousal``.
        device: where the network is put.

    Raises:
        InputError: if the network does not predict that, or reads faces of another size.
    """
    if kind not in getattr(network, "tasks", ()):
        raise InputError(f"the network does not predict {kind}")
    size, channels = network.config.image_size, network.config.image_channels
    if (size, channels) != (table.image_size, table.channels):
        raise InputError(
            f"the network reads faces of {size} px and {channels} channels, not {table.image_size} and {table.channels}"
        )
    values = getattr(table, kind).clone()
    missing = values.isnan().all(1)
    if missing.any():
        values[missing] = predict_tasks(network.to(device), table.select(missing), device=device)[kind]
    return table.replace(**{kind: values})


@contextmanager
def _batches(
    model: nn.Module, table: FaceTable, device: torch.device | str, batch_size: int, precision: torch.dtype | None
) -> Iterator[Iterator[Tensor]]:
    """The faces of ``table`` in batches, pixels in [-1, 1]; meanwhile ``model`` evaluates, under an autocast."""

    def batches() -> Iterator[Tensor]:
        starts = range(0, len(table), batch_size)
        for start in shown(starts, "recognizing", unit="batch"):
            images = to_unit(table.images[start : start + batch_size], device)
            yield images.contiguous(memory_format=torch.channels_last)

    autocast = torch.autocast(torch.device(device).type, dtype=precision, enabled=precision is not None)
    with evaluating(model), autocast:
        yield batches()


def save_network(model: Network, directory: str | Path) -> None:
    """``model.save_pretrained(directory)``, of which no file is ever seen half-written; the configuration comes last.

    Args:
        model: one of :data:`KINDS`.
        directory: made if missing.
    """
    directory = Path(directory)
    beside = directory.resolve()  # "." has no name
    partial = beside.with_name(f".{beside.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with plain_errors(directory):
            model.save_pretrained(partial)
            directory.mkdir(parents=True, exist_ok=True)
            for file in sorted(partial.iterdir(), key=lambda file: (file.name == CONFIG, file.name)):
                flush_file(file)
                os.replace(file, directory / file.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def load_network(directory: str | Path, *, part: str = "model") -> Network:
    """A network saved by ``save_pretrained``, or the named ``part`` of a finished run (``model`` or ``generator``).

    Raises:
        InputError: if there is no such network in ``directory``, or its weights are not exactly those that its
            configuration asks for.
    """
    directory = Path(directory)
    for folder in (directory, directory / part):
        config = folder / CONFIG
        if config.is_file():
            break
    else:
        raise InputError(f"{directory}: no model here ({CONFIG} is missing); give a run's folder or a saved model")
    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise InputError(f"{config}: not a model's configuration (broken JSON)") from None
    name = settings.get("_class_name") if isinstance(settings, dict) else settings
    if not isinstance(name, str) or name not in KINDS:
        raise InputError(f"{config}: describes {name!r}, not one of {', '.join(KINDS)}")
    try:
        with _silent_library():
            model, found = KINDS[name].from_pretrained(
                folder, low_cpu_mem_usage=False, use_safetensors=True, output_loading_info=True
            )
    except (OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise InputError(f"{folder}: cannot load the weights ({reason})") from None
    # The library would fill what is missing with random numbers and leave out what it does not know.
    for key, what in (("missing_keys", "lack"), ("unexpected_keys", "have the unknown"), ("error_msgs", "do not fit:")):
        if found[key]:
            names = ", ".join(found[key][:3]) + (f" and {len(found[key]) - 3} more" if len(found[key]) > 3 else "")
            raise InputError(f"{folder}: the weights {what} {names}; they are not those of this configuration")
    if any(not tensor.isfinite().all() for tensor in model.state_dict().values()):
        raise InputError(f"{folder}: the weights are not finite (NaN or inf): train the network anew")
    if model.classes != ordered_classes(name for name in model.classes if name in EXPRESSIONS):
        raise InputError(f"{config}: classes are {model.classes}: use some of {', '.join(EXPRESSIONS)}, in this order")
    return model.eval()


@contextmanager
def _silent_library() -> Iterator[None]:
    """Within it diffusers keeps its warnings to itself; what matters of them is said in other ways."""
    library = logging.getLogger("diffusers")
    level = library.level
    library.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        library.setLevel(level)
