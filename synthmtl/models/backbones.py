"""Networks of torchvision as trunks."""

import copy
from urllib.error import URLError

import torch
import torchvision
from torch import Tensor, nn

from synthmtl.errors import InputError
from synthmtl.models.trunk import normalize_across_processes

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, for pixels in [0, 1]
_EXAMPLES = "densenet121, resnet18, regnet_y_400mf, efficientnet_b0, mobilenet_v3_small"


class TorchvisionTrunk(nn.Module):
    """A classifier of torchvision up to its last feature map, in place of a :class:`MultiTaskTrunk` of one branch.

    ``forward`` takes faces (B, 1 or 3, H, W) in [-1, 1], gray ones repeated to three channels, normalizes them as
    ImageNet's, and returns the map (B, C, h, w) for every task, and None. DenseNets' maps are those after the last
    normalization, without ReLU.

    Args:
        name: of ``torchvision.models.list_models``.
        tasks: T, how many.
        image_size: height = width of the faces.
        pretrained: start from the model's default weights, which are downloaded where they are not in the cache.

    Attributes:
        channels, map_size: C, and h = w.
        weights: name of the weights that it started from, or None.

    Raises:
        InputError: if there is no such model, it has no feature map or none of such small faces, or its weights cannot
            be had.
    """

    single_trunk, joined = True, True
    mean: Tensor
    deviation: Tensor

    def __init__(self, name: str, *, tasks: int, image_size: int, pretrained: bool):
        super().__init__()
        if name not in torchvision.models.list_models(module=torchvision.models):
            raise InputError(
                f"unknown backbone {name!r}: use narrow, or a classifier of torchvision ({_EXAMPLES}, ...)"
            )
        self.tasks = tasks
        weights = torchvision.models.get_model_weights(name).DEFAULT if pretrained else None
        self.weights = None if weights is None else str(weights)
        try:
            features = _up_to_map(torchvision.models.get_model(name, weights=weights))
        except (URLError, OSError, RuntimeError) as error:
            if weights is None:
                raise
            raise InputError(
                f"backbone {name}: cannot download {weights.url} ({error}); put the file into "
                f"{torch.hub.get_dir()}/checkpoints, or set pretrained to false"
            ) from None
        if features is None:
            raise InputError(f"backbone {name!r} has no feature map to read: use one such as {_EXAMPLES}")
        self.features = features
        normalize_across_processes(self.features)
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("deviation", torch.tensor(_DEVIATION)[:, None, None], persistent=False)
        # Shapes need no numbers, and there are none while ``from_pretrained`` builds a network that it then fills.
        probe = copy.deepcopy(self.features).to("meta").eval()
        try:
            with torch.no_grad():
                shape = probe(torch.zeros(1, 3, image_size, image_size, device="meta")).shape
        except RuntimeError:  # a pooling or a kernel without a pixel to work on
            raise InputError(f"image_size {image_size} is too small for backbone {name}") from None
        self.channels, self.map_size = shape[1], shape[2]

    def forward(self, images: Tensor) -> tuple[list[Tensor], None]:
        pixels = (images + 1) / 2
        pixels = pixels.expand(-1, 3, -1, -1) if pixels.shape[1] == 1 else pixels
        return [self.features((pixels - self.mean) / self.deviation)] * self.tasks, None

    def parameters_of(self, *tasks: int) -> list[nn.Parameter]:
        """The parameters that the features of ``tasks`` depend on: all."""
        return list(self.parameters())


def _up_to_map(model: nn.Module) -> nn.Module | None:
    """What a classifier computes up to its last map (B, C, h, w), or None if that is no plain chain of modules."""
    if isinstance(model, torchvision.models.SwinTransformer):
        return None  # its features are (B, h, w, C)
    features = getattr(model, "features", None)
    if isinstance(features, nn.Module):
        return features
    last = next((name for name in ("layer4", "trunk_output", "conv5", "layers") if hasattr(model, name)), None)
    if last is None:
        return None
    chain = nn.Sequential()
    for name, child in model.named_children():
        chain.add_module(name, child)
        if name == last:
            return chain
    return None
