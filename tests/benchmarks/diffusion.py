"""A training step of the diffusion model against the loop of diffusers' unconditional example, for the same UNet."""

import copy
from collections.abc import Callable

import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch.nn import functional as F

from synthmtl.losses import ExpressionLoss
from synthmtl.losses.diffusion import DenoisingOptions, DiffusionObjective
from synthmtl.models.denoiser import DiffusionFERSNet
from synthmtl.training import Player, build_accelerator

from .faces import CLASSES, edit_batch, training
from .timing import Laps, Row, compare, in_turn


def example_training(
    network: DiffusionFERSNet, images: torch.Tensor, accelerator: Accelerator, steps: int
) -> Callable[[], float]:
    """A call that trains the network's UNet alone as the example does; what it is told is zeros. It returns the seconds
    of a step."""
    unet, patch = network.unet, network.config.patch_size
    schedule = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    pixels = F.pixel_unshuffle(images, patch)
    told = pixels.new_zeros(len(images), unet.config.in_channels - pixels.shape[1], *pixels.shape[2:])
    label = torch.zeros(len(images), 4 * network.config.unet_channels[0])

    stream = Laps([images])

    def run() -> float:
        model = accelerator.prepare_model(unet.train())
        optimizer = accelerator.prepare_optimizer(torch.optim.AdamW(unet.parameters(), 1e-4, (0.95, 0.999)))
        rate = get_scheduler("constant", optimizer)
        average = EMAModel(unet.parameters(), decay=0.999)
        for step in range(steps):
            images = stream(step)
            noise = torch.randn_like(images)
            times = torch.randint(0, 1000, (len(images),))
            noisy = F.pixel_unshuffle(schedule.add_noise(images, noise, times), patch)
            predicted = model(torch.cat([noisy, told], 1), times, None, class_labels=label).sample
            loss = F.mse_loss(F.pixel_shuffle(predicted, patch).float(), noise)
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(unet.parameters(), 1.0)
            optimizer.step()
            rate.step()
            optimizer.zero_grad()
            average.step(unet.parameters())
            loss.detach().item()
        return stream.median()

    return run


def rows(tiny: bool) -> list[Row]:
    """Milliseconds of a step: without sources, and with sources that are encoded through the gates."""
    size, batch_size, steps = ("tiny", 2, 3) if tiny else ("cpu", 32, 4)
    torch.manual_seed(0)
    network = DiffusionFERSNet.sized(size, classes=CLASSES)
    pixels = network.config.image_size
    accelerator = build_accelerator(precision="auto")
    calls = {}
    for name, paired in (("without sources", False), ("sources through the gates", True)):
        batch = edit_batch(batch_size, pixels, labelled=1, paired=paired)
        trained = copy.deepcopy(network)
        if not paired:  # the control: the UNet alone, as in the example
            trained.requires_grad_(False).unet.requires_grad_(True)
        objective = DiffusionObjective(trained, ExpressionLoss(), DenoisingOptions(), recognition=0.0)
        player = Player("network", objective)
        calls[name] = training([player], Laps([batch]), accelerator, steps=steps, learning_rate=1e-4, ema_decay=0.999)
    images = edit_batch(batch_size, pixels, labelled=1, paired=False).target.image
    calls["diffusers"] = example_training(network, images, accelerator, steps)
    seconds = in_turn(calls, rounds=1 if tiny else 6, warmup=0)
    plain = seconds.pop("diffusers")
    wanted = {"without sources": 0.95}
    return [compare(name, ours, plain, wanted=wanted.get(name)) for name, ours in seconds.items()]
