"""The objectives of joint training: what the two branches and the critic minimize."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from synthmtl.data.batch import EditBatch, FaceBatch
from synthmtl.errors import InputError
from synthmtl.losses.adversarial import differentiable_augment, least_squares
from synthmtl.losses.expression import ExpressionLoss
from synthmtl.losses.heterogeneous import HeterogeneousLoss
from synthmtl.losses.reconstruction import change_weights, folding, pixel_loss, smoothness
from synthmtl.losses.weighting import weighted_mean
from synthmtl.models.blocks import unrecorded_statistics
from synthmtl.models.decoder import Edit
from synthmtl.models.encoder import Encoded
from synthmtl.models.fersnet import FERSNet


@dataclass
class SynthesisWeights:
    """Weights of the synthesis losses; a weight of 0 takes the term out.

    Attributes:
        pixel: weighted L1 and gradient loss against the paired target.
        perceptual: feature distance to the paired target.
        divergence: KL of the style posterior from the class's prior, per nat.
        expression: cross-entropy of the frozen guide on edited faces.
        adversarial: least-squares GAN.
        cycle: edit and back, on unpaired faces; against the source in pixels.
        identity: a face edited to its own expression with its own style stays itself, on unpaired faces.
        subject: the edited face keeps the source's coarse picture (8×8).
        smoothness: squared differences of the flow.
        folding: where the flow smears the face or folds it over, on faces that are compared with no target: there the
            guide would smear the eyes for the sake of surprise. A target bounds the flow better, and may ask for it.
        residual: squared residual beyond the warp.
        sharing: what the sharing units ask for, which they weigh themselves.

    Raises:
        InputError: if a weight is below 0 or not finite.
    """

    pixel: float = 10.0
    perceptual: float = 0.5
    divergence: float = 0.002
    expression: float = 0.5
    adversarial: float = 0.5
    cycle: float = 2.0
    identity: float = 3.0
    subject: float = 1.0
    smoothness: float = 0.02
    folding: float = 200.0
    residual: float = 0.5
    sharing: float = 1.0

    def __post_init__(self):
        for name, weight in dataclasses.asdict(self).items():
            if not 0 <= weight < math.inf:
                raise InputError(f"the weight {name} must be a finite number from 0 up, not {weight}")


class RecognitionObjective(nn.Module):
    """Recognition alone: ``forward(batch: FaceBatch)`` → ``{"loss", "expression"}``, ``"sharing"`` where there is any.

    Args:
        model: faces → logits.
        expression_loss: the cross-entropy.
        sharing: weight of what the network's sharing units ask for, if it has any that do.
    """

    def __init__(self, model: nn.Module, expression_loss: ExpressionLoss, *, sharing: float = 1.0):
        super().__init__()
        self.model = model
        self.expression_loss = expression_loss
        self.sharing = sharing

    def forward(self, batch: FaceBatch) -> dict[str, Tensor]:
        penalty = None
        if hasattr(self.model, "encode"):
            encoded = self.model.encode(batch.image)  # type: ignore[operator]
            logits, penalty = self.model.classify(encoded), encoded.penalty  # type: ignore[operator]
        else:
            logits = self.model(batch.image)
        loss = self.expression_loss(logits, batch.expression, batch.weight, batch.expression_distribution)
        terms = {"expression": loss.detach()}
        if penalty is not None and self.sharing:
            loss = loss + self.sharing * penalty
            terms["sharing"] = penalty.detach()
        return {"loss": loss} | terms


class FERSNetObjective(nn.Module):
    """Recognition and synthesis together, paired, unpaired or both in one batch, as ``EditBatch.paired`` says.

    Every face passes the encoder once and is decoded once. Two thirds of the paired rows are decoded with the style
    read from their target and compared with it; the other rows with a style drawn from the class's prior, as at
    synthesis time (every other unpaired row borrows that of its example instead). The first of every three paired rows
    of the global batch is the one that is not compared, so that one pair alone teaches nothing: a step takes two or
    more. The decoder is told what the network is conditioned on, of target and source; all edited faces are judged by
    guide and critic, by their expression. The critic sees rows of the unpaired kind if there are any, since those are
    the user's faces. Where several processes train, each must have as many paired rows as the others. Guide, critic and
    perceptual distance are moved to the device by the caller.

    Args:
        model: the FERSNet.
        expression_loss: cross-entropy of the recognition branch.
        weights: of the synthesis losses.
        recognition: weight of the recognition loss.
        guide: a frozen recognizer; None turns off the expression term.
        guide_noise: deviation of the noise that hides the edited faces' fine patterns from the guide, in units of
            [-1, 1] pixels; it should be the one that the guide was trained with.
        perceptual: (faces, faces) → (B,), e.g. of ``perceptual_distance``; None turns off the perceptual term.
        critic: discriminator (image, expression) → scores; None turns off the adversarial loss.
        labels: of the model's further tasks, on the labelled faces; None if it has none.

    ``forward(batch: EditBatch)`` returns every term by name, their weighted sum as ``loss``, and the two parts of that
    sum, for aggregators, as ``task/recognition`` (the expression term) and ``task/synthesis`` (all others), with
    ``task/NAME`` of each further task; the faces that the critic will see are left in ``batch.edited``.
    """

    def __init__(
        self,
        model: FERSNet,
        expression_loss: ExpressionLoss,
        weights: SynthesisWeights,
        *,
        recognition: float = 1.0,
        guide: nn.Module | None = None,
        guide_noise: float = 0.05,
        perceptual: nn.Module | None = None,
        critic: nn.Module | None = None,
        labels: HeterogeneousLoss | None = None,
    ):
        super().__init__()
        self.model = model
        self.expression_loss = expression_loss
        self.labels = labels
        self.weights = dataclasses.replace(weights)
        self.recognition = recognition
        self.guide_noise = guide_noise
        # In a tuple: none is a submodule, so that no optimizer, checkpoint or DDP wrapper takes them for ours.
        self._frozen = (guide, critic, perceptual)
        if guide is not None:
            guide.eval().requires_grad_(False)

    def forward(self, batch: EditBatch) -> dict[str, Tensor]:
        model, w = self.model, self.weights
        guide, critic, perceptual = self._frozen
        labelled, edits = len(batch.labelled), len(batch.source)
        source, target, paired = batch.source.image, batch.target.image, batch.paired
        wanted, condition = batch.target.expression, model.config.condition
        told = getattr(batch.target, condition)
        encoded = model.encode(torch.cat([batch.labelled.image, source]))
        rows = [labelled, edits]
        parts = [
            encoded._replace(recognition=each[0], synthesis=each[1], skips=list(each[2:]))
            for each in zip(*(t.split(rows) for t in (*encoded[:2], *encoded.skips)), strict=True)
        ]
        further = [features[:labelled] for features in encoded.further]
        logits = model.classify(parts[0])
        faces = batch.labelled
        expression = self.expression_loss(logits, faces.expression, faces.weight, faces.expression_distribution)
        terms = {"expression": expression}
        total = recognition = self.recognition * terms["expression"]
        synthesis = []

        def add(name: str, weight: float, value: Tensor) -> None:
            nonlocal total
            terms[name] = value
            synthesis.append(weight * value)
            total = total + synthesis[-1]

        if encoded.penalty is not None and w.sharing:
            add("sharing", w.sharing, encoded.penalty)
        posterior = model.style.posterior(target)
        noise = batch.random.normal("style", 2 * edits, model.style.dim)
        read = model.style.draw(posterior, noise[:edits])
        prior = model.style.prior(told)
        add("divergence", w.divergence, model.style.divergence(posterior, prior).mean())
        # The divergence alone fits the prior to the posteriors. Could guide and critic move it too, drawn styles would
        # differ from read ones, and the decoder would learn to please those two where no pixel is compared.
        mean, log_variance = (moments.detach() for moments in prior)
        unpaired = ~paired
        turn = batch.random.positions(edits).to(paired.device)
        reads = torch.where(paired, turn % 3 > 0, turn % 2 > 0)
        drawn = model.style.draw((mean, log_variance), noise[edits:])
        edit = model.decode(parts[1], source, told, torch.where(reads[:, None], read, drawn))
        compared = paired & reads
        if paired.any():
            pairs = torch.where(paired)[0]
            made, goal, counted = edit.image[pairs], target[pairs], compared[pairs]
            loss = pixel_loss(made, goal, change_weights(source[pairs], goal))
            add("pixel", w.pixel, weighted_mean(loss, counted))
            if perceptual is not None and w.perceptual:
                add("perceptual", w.perceptual, weighted_mean(perceptual(made, goal), counted))
        if edit.flow is not None and w.smoothness:
            add("smoothness", w.smoothness, smoothness(edit.flow).mean())
        if edit.flow is not None and w.folding:
            add("folding", w.folding, weighted_mean(folding(edit.flow), ~compared))
        if edit.residual is not None and w.residual:
            add("residual", w.residual, edit.residual.square().mean())
        if w.subject:
            after, before = (F.avg_pool2d(x, max(1, x.shape[-1] // 8)) for x in (edit.image, source))
            add("subject", w.subject, F.mse_loss(after, before))
        if guide is not None and w.expression:
            seen = differentiable_augment(moved(edit, ~compared), batch.random, "guide", noise=self.guide_noise)
            add("guide", w.expression, F.cross_entropy(guide(seen).float(), wanted, label_smoothing=0.1))
        batch.edited = edit.image.detach()
        if critic is not None and w.adversarial:
            judged = judged_rows(paired)
            critic.requires_grad_(False)
            scores = critic(differentiable_augment(edit.image, batch.random, "critic")[judged], wanted[judged])
            critic.requires_grad_(True)
            add("adversarial", w.adversarial, least_squares(scores, 1).mean())
        if unpaired.any():
            self._unpaired_terms(batch, parts[1], edit, torch.where(unpaired)[0], add)
        tasks = {"task/recognition": recognition, "task/synthesis": sum(synthesis)}
        if self.labels is not None:
            found = self.labels(model.read_further(parts[0]._replace(further=further)), batch.labelled)
            total = total + found.pop("loss")
            tasks |= {name: value for name, value in found.items() if name.startswith("task/")}
            terms |= {name: value for name, value in found.items() if not name.startswith("task/")}
        return {"loss": total} | tasks | {name: value.detach() for name, value in terms.items()}

    def _unpaired_terms(self, batch: EditBatch, encoded: Encoded, edit: Edit, rows: Tensor, add: Callable) -> None:
        """What replaces the paired target: cycle and identity."""
        model, w = self.model, self.weights
        own = getattr(batch.source, model.config.condition)[rows]
        source, edited = batch.source.image[rows], edit.image[rows]
        own_style, _ = model.style.posterior(source)
        if w.identity:
            part = encoded._replace(synthesis=encoded.synthesis[rows], skips=[skip[rows] for skip in encoded.skips])
            same = model.decode(part, source, own, own_style).image
            add("identity", w.identity, (same - source).abs().mean())
        if w.cycle:
            with unrecorded_statistics(model):
                again = model.encode(edited)
            back = model.decode(again, edited, own, own_style).image
            add("cycle", w.cycle, F.smooth_l1_loss(back, source, beta=0.2))


def moved(edit: Edit, rows: Tensor) -> Tensor:
    """The edited faces, through which no gradient reaches what is painted on ``rows`` (B,) bool; (B, C, H, W).

    A guide that may paint where no target bounds it leaves marks that please it: ripples on rendered faces, a black dot
    for surprise on every photograph. Such a face it may move; what to paint there is taught by the rows that are
    compared with a target, and held to real faces by the critic.
    """
    if edit.warped is None or edit.residual is None:
        return edit.image
    painted = torch.where(rows[:, None, None, None], edit.residual.detach(), edit.residual)
    return (edit.warped + painted).clamp(-1, 1)


def judged_rows(paired: Tensor) -> Tensor:
    """Rows that the critic sees: those of the unpaired kind if there are any, since those are the user's faces."""
    rows = torch.where(~paired)[0]
    return rows if len(rows) else torch.arange(len(paired), device=paired.device)


class CriticObjective(nn.Module):
    """The critic's side: real faces of the wanted expression against edited ones and against wrong labels.

    Args:
        critic: discriminator (image, expression) → scores.
        classes: number of expressions.

    ``forward(batch: EditBatch)`` → ``{"loss", "critic_real", "critic_fake"}`` with the mean scores. The batch's
    ``edited`` faces are judged: the generator's turn with this batch comes first.

    Raises:
        InputError: if no generator has edited the batch's faces.
    """

    def __init__(self, critic: nn.Module, classes: int):
        super().__init__()
        self.critic = critic
        self.classes = classes

    def forward(self, batch: EditBatch) -> dict[str, Tensor]:
        rows = judged_rows(batch.paired)
        if batch.edited is None:
            raise InputError("a critic judges edited faces: give the generator's objective the same batch first")
        target, edited = batch.target.image[rows], batch.edited[rows]
        wanted, count = batch.target.expression, len(batch.target)
        wrong = (wanted + 1 + batch.random.integers("wrong", 0, self.classes - 1, count)) % self.classes
        wanted, wrong = wanted[rows], wrong[rows]
        images = torch.cat([target, edited, target])
        images = differentiable_augment(images, batch.random, "critic-real")
        real, fake, mismatched = self.critic(images, torch.cat([wanted, wanted, wrong])).split(len(rows))
        errors = least_squares(real, 1) + least_squares(fake, 0) + 0.5 * least_squares(mismatched, 0)
        return {
            "loss": 0.5 * errors.mean(),
            "critic_real": real.mean().detach(),
            "critic_fake": fake.mean().detach(),
        }
