"""A training step of FERSNet at the published size against a plain transcription of the published network and schedule.

The transcription (Zhao et al., ICPR 2020): four convolutions a gated unit, float32, Adam; in each step three updates of
the discriminator, each with edited faces made anew, then one of the network by cross-entropy, L1, 0.05 times the
distance in a frozen face network, 0.3 times the least-squares GAN loss and half the error of the way back. It has the
weights of our network and gives the same outputs, which is checked before anything is measured.
"""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synthmtl.data.batch import EditBatch
from synthmtl.losses import ExpressionLoss, FERSNetObjective
from synthmtl.losses.fersnet import CriticObjective, SynthesisWeights
from synthmtl.losses.reconstruction import FeatureDistance
from synthmtl.models import FERSNet, Recognizer
from synthmtl.models.discriminator import PatchDiscriminator
from synthmtl.training import Player, build_accelerator, resolve_precision

from .faces import CLASSES, edit_batch, training
from .sharing import PlainFLU
from .timing import Row, compare, in_turn


class PlainFERSNet(nn.Module):
    """The published network, read off its drawing: stem, three stages of two branches, gates, joint block, decoder."""

    def __init__(self, ours: FERSNet, *, fused: bool):
        super().__init__()
        encoder = ours.encoder
        self.stem, self.branches, self.joint = map(copy.deepcopy, (encoder.stem, encoder.branches, encoder.joint))
        self.head, self.decoder = copy.deepcopy(ours.head), copy.deepcopy(ours.decoder)

        def gate(unit: nn.Module) -> nn.Module:
            fast = copy.deepcopy(unit)
            return fast if fused else PlainFLU(fast.candidate.out_channels, bias=False).take_weights(fast)

        self.gates = nn.ModuleList(
            nn.ModuleList(gate(unit.units[way]) for way in ("1_to_0", "0_to_1")) for unit in encoder.units
        )

    def forward(self, image: Tensor, expression: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Logits, and the face with another expression."""
        x = y = self.stem(image)
        skips = [x]
        for to_x, to_y, gate in zip(*self.branches, self.gates, strict=True):
            x, y = to_x(x), to_y(y)
            x, y = gate[0](x, y), gate[1](y, x)
            skips.append(y)
        recognition, synthesis = self.joint(torch.cat([x, y], 1)).chunk(2, 1)
        code = F.one_hot(expression, self.head.linear.out_features)
        return self.head(recognition), self.decoder(synthesis, skips[-2::-1], image, code, noise).image


class PlainTraining:
    """The published schedule; a call is a step.

    Args:
        fused: our gates instead of the plain ones.
        bfloat16: bf16 and channels_last instead of float32.
        critic_steps: updates of the discriminator in a step.
    """

    def __init__(self, ours: FERSNet, critic: nn.Module, face_network: nn.Module, batch: EditBatch, *,
                 fused: bool = False, bfloat16: bool = False, critic_steps: int = 3):  # fmt: skip
        self.network, self.critic = PlainFERSNet(ours, fused=fused).train(), copy.deepcopy(critic)
        self.face_network, self.batch = face_network, batch
        self.bfloat16, self.critic_steps, self.style = bfloat16, critic_steps, ours.style.dim
        if bfloat16:
            for part in (self.network, self.critic):
                part.to(memory_format=torch.channels_last)
        options = {"lr": 1e-4, "betas": (0.5, 0.999), "weight_decay": 5e-4}
        self.optimizers = [torch.optim.Adam(part.parameters(), **options) for part in (self.network, self.critic)]

    def edit(self, image: Tensor, expression: Tensor) -> tuple[Tensor, Tensor]:
        return self.network(image, expression, torch.randn(len(image), self.style))

    def __call__(self) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bfloat16):
            self.step()

    def step(self) -> None:
        source, target = self.batch.source, self.batch.target
        for _ in range(self.critic_steps):
            with torch.no_grad():
                _, edited = self.edit(source.image, target.expression)
            real, fake = (self.critic(image, target.expression) for image in (target.image, edited))
            self.update(1, 0.5 * ((real - 1).square().mean() + fake.square().mean()))
        logits, edited = self.edit(source.image, target.expression)
        _, back = self.edit(edited, source.expression)
        features = zip(self.face_network.features(edited), self.face_network.features(target.image), strict=True)
        self.critic.requires_grad_(False)
        loss = (
            F.cross_entropy(logits, source.expression)
            + (edited - target.image).abs().mean()
            + 0.05 * sum(F.mse_loss(a.float(), b.float()) for a, b in features)
            + 0.3 * (self.critic(edited, target.expression) - 1).square().mean()
            + 0.5 * F.mse_loss(back, source.image)
        )
        self.critic.requires_grad_(True)
        self.update(0, loss)

    def update(self, which: int, loss: Tensor) -> None:
        self.optimizers[which].zero_grad()
        loss.backward()
        self.optimizers[which].step()
        loss.item()


def check_equal(ours: FERSNet, batch: EditBatch) -> None:
    """Stop if the transcription, with our weights, gives other outputs."""
    plain = PlainFERSNet(ours, fused=False).eval()
    ours = copy.deepcopy(ours).eval()
    style = torch.randn(len(batch.source), ours.style.dim, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        encoded = ours.encode(batch.source.image)
        made = ours.decode(encoded, batch.source.image, batch.target.expression, style).image
        logits, image = plain(batch.source.image, batch.target.expression, style)
    torch.testing.assert_close(ours.classify(encoded), logits, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(made, image, atol=1e-3, rtol=1e-3)


def joint_players(ours: FERSNet, critic: nn.Module, face_network: nn.Module) -> list[Player]:
    """Copies of the networks as ``synthmtl run`` trains them jointly."""
    model, critic = copy.deepcopy(ours), copy.deepcopy(critic)
    distance = FeatureDistance(face_network.features)
    objective = FERSNetObjective(
        model, ExpressionLoss(), SynthesisWeights(), guide=face_network, perceptual=distance, critic=critic
    )
    return [Player("generator", objective), Player("critic", CriticObjective(critic, len(CLASSES)))]


def our_training(ours: FERSNet, critic: nn.Module, face_network: nn.Module, batch: EditBatch, precision: str):
    """A call that takes one step of joint training."""
    players = joint_players(ours, critic, face_network)
    accelerator = build_accelerator(precision=precision)
    return training(players, lambda step: batch, accelerator, steps=1, learning_rate=1e-4)


def rows(tiny: bool) -> list[Row]:
    """Milliseconds of a step of the plain way, of ours, and of the plain way with one thing of ours each."""
    size, count, rounds = ("tiny", 2, 1) if tiny else ("published", 8, 3)
    torch.manual_seed(0)
    ours = FERSNet.sized(size, classes=CLASSES, output="direct", sharing_options={"gate_bias": None})
    pixels = ours.config.image_size
    widths = (8, 16) if tiny else (64, 128, 256, 512)
    critic = PatchDiscriminator(image_channels=1, classes=len(CLASSES), channels=widths)
    face_network = Recognizer(classes=CLASSES, image_size=pixels).eval().requires_grad_(False)
    batch = edit_batch(count, pixels, labelled=count, paired=True)
    check_equal(ours, batch)
    bfloat16 = resolve_precision("auto") == "bf16"
    parts = (ours, critic, face_network, batch)
    calls = {
        "ours": our_training(*parts, "auto"),
        "ours in float32": our_training(*parts, "no"),
        "plain with fused gates": PlainTraining(*parts, fused=True),
        "plain with the machine's precision, channels_last": PlainTraining(*parts, bfloat16=bfloat16),
        "plain with one critic step to one": PlainTraining(*parts, critic_steps=1),
        "plain": PlainTraining(*parts),
    }
    seconds = in_turn(calls, rounds=rounds, warmup=0 if tiny else 1)
    plain = seconds.pop("plain")
    case = f"{pixels} px, batch {count}: "
    return [compare(case + name, each, plain, wanted=1.5 if name == "ours" else None) for name, each in seconds.items()]
