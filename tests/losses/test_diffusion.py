import copy
import math

import pytest
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr

from synthmtl.data.batch import EditBatch
from synthmtl.data.randomness import StepRandom
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError
from synthmtl.losses import DenoisingOptions, DiffusionObjective, ExpressionLoss
from synthmtl.models import DiffusionFERSNet
from synthmtl.models.denoiser import CHANGE_SCALE
from synthmtl.training import Player, TrainingConfig, build_accelerator, fit

CLASSES = ("neutral", "happiness", "sadness", "anger")
PAIRED = {"paired": [True] * 4, "unpaired": [False] * 4, "mixed": [True, True, False, False]}


def model(seed=0, *, adapted=True, **config):
    torch.manual_seed(seed)
    net = DiffusionFERSNet.sized("tiny", **({"classes": CLASSES} | config))
    if adapted:
        with torch.no_grad():
            for p in net.adapter.parameters():
                p.normal_(std=0.1)
    return net.train()


def table(count=16):
    generator = torch.Generator().manual_seed(0)
    return FaceTable(
        images=torch.randint(256, (count, 1, 32, 32), generator=generator, dtype=torch.uint8),
        classes=CLASSES,
        expression=torch.arange(count) % 4,
        action_units=torch.rand(count, 22, generator=generator),
        valence_arousal=torch.rand(count, 2, generator=generator) * 2 - 1,
    )


def batch(kind="mixed", *, step=0, rank=0, world=1):
    """8 labelled faces, of which two lack a label, and 4 edits."""
    faces = table()
    labelled = faces.batch(torch.arange(8)[rank::world])
    labelled.expression[torch.isin(torch.arange(8)[rank::world], torch.tensor([0, 5]))] = -1
    rows, paired = torch.tensor([8, 9, 10, 11])[rank::world], torch.tensor(PAIRED[kind])[rank::world]
    random = StepRandom(0, step, rank=rank, world=world)
    return EditBatch(labelled, faces.batch(rows), faces.batch(rows + 1), paired, random)


def objective(net=None, *, recognition=1.0, **options):
    return DiffusionObjective(net or model(), ExpressionLoss(), DenoisingOptions(**options), recognition=recognition)


def learned(goal, given):
    """Loss terms and gradients."""
    terms = goal(given)
    terms["loss"].backward()
    return terms, {name: p.grad for name, p in goal.model.named_parameters()}


@pytest.mark.parametrize("condition", ["expression", "action_units", "valence_arousal"])
@pytest.mark.parametrize("kind", PAIRED)
def test_every_parameter_learns(kind, condition):
    terms, gradients = learned(objective(model(condition=condition), drop_source=0.0), batch(kind))
    tasks = {"task/recognition", "task/synthesis"}
    assert set(terms) == {"loss", "expression", "denoising"} | tasks
    assert {name for name, value in terms.items() if value.requires_grad} == {"loss"} | tasks
    assert all(value.isfinite() for value in terms.values())
    for name, gradient in gradients.items():
        # Without pairs there is no source.
        assert (gradient is None) == (kind == "unpaired" and name.startswith("adapter.")), name
        assert gradient is None or (gradient.isfinite().all() and gradient.count_nonzero() > 0), name


def test_what_is_made_noisy_is_the_change_where_a_source_is_kept(monkeypatch):
    net, given = model(diffused="change"), batch("mixed")
    seen = {}

    def look(clean, noise, times):
        seen["clean"] = clean
        return type(net.schedule).noisy(net.schedule, clean, noise, times)

    monkeypatch.setattr(net.schedule, "noisy", look)
    objective(net, drop_source=0.0)(given)
    change = CHANGE_SCALE * (given.target.image - given.source.image)
    assert torch.equal(seen["clean"], torch.where(given.paired.view(-1, 1, 1, 1), change, given.target.image))
    objective(net, drop_source=1.0)(given)
    assert torch.equal(seen["clean"], given.target.image)


def test_loss_is_the_sum_of_its_tasks_and_terms():
    net = model(sharing="replace", sharing_options={"weight": 0.5})
    goal = objective(net, recognition=0.7, denoising=2.0, balancing=3.0, sharing=0.5)
    terms = {name: value.detach() for name, value in goal(batch()).items()}
    torch.testing.assert_close(terms["task/recognition"], 0.7 * terms["expression"])
    synthesis = 2 * terms["denoising"] + 3 * terms["balancing"] + 0.5 * terms["sharing"]
    torch.testing.assert_close(terms["task/synthesis"], synthesis)
    torch.testing.assert_close(terms["loss"], terms["task/recognition"] + terms["task/synthesis"])
    assert "sharing" not in objective(net, sharing=0.0)(batch())


@pytest.mark.parametrize("prediction", ["v", "flow"])
@pytest.mark.parametrize("options", [{}, {"snr_gamma": 5.0}, {"times": "logit_normal"}])
def test_a_perfect_denoiser_loses_nothing(prediction, options):
    net, given = model(prediction=prediction), batch()

    def perfect(noisy, timestep, *_, **__):
        return net.schedule.predicted(noisy, given.target.image, timestep)

    net.denoise = perfect
    assert objective(net, **options)(given)["denoising"] < 1e-6
    net.denoise = lambda noisy, *_, **__: torch.zeros_like(noisy)
    assert objective(net, **options)(given)["denoising"] > 0.05


@pytest.mark.parametrize("prediction", ["v", "flow"])
def test_min_snr_counts_the_clean_face(prediction):
    """min(SNR, gamma) times the squared error of the clean face, whatever is predicted."""
    net, given, asked = model(prediction=prediction), batch(), {}

    def blank(noisy, timestep, *_, **__):
        asked.update(noisy=noisy, timestep=timestep)
        return torch.zeros_like(noisy)

    net.denoise = blank
    loss = objective(net, snr_gamma=5.0)(given)["denoising"]
    times = asked["timestep"]
    if prediction == "v":
        snr = compute_snr(DDPMScheduler(beta_schedule="squaredcos_cap_v2"), times)
    else:
        snr = (1000 / times - 1).square()
    meant = net.schedule.clean(asked["noisy"], torch.zeros_like(asked["noisy"]), times)
    errors = (meant - given.target.image).square().mean((1, 2, 3))
    torch.testing.assert_close(loss, (snr.clamp(max=5) * errors).mean(), rtol=1e-4, atol=1e-5)


def test_only_pairs_show_their_source():
    def denoising(kind, change, **options):
        given = batch(kind)
        change(given)
        return objective(model().eval(), **options)(given)["denoising"]

    def same(_):
        pass

    def others(given):
        given.source.image = given.source.image.flip(0)

    assert not torch.isclose(denoising("paired", same, drop_source=0.0), denoising("paired", others, drop_source=0.0))
    assert torch.equal(denoising("unpaired", same), denoising("unpaired", others))
    torch.testing.assert_close(denoising("paired", same, drop_source=1.0), denoising("unpaired", same))
    first, second = batch("mixed"), batch("mixed")
    second.source.image[2:] = -second.source.image[2:]
    goal = objective(model().eval(), drop_source=0.0)
    assert torch.equal(goal(first)["denoising"], goal(second)["denoising"])


def test_dropped_targets_have_no_influence():
    given, others = batch(), batch()
    others.target.expression = others.target.expression.flip(0)
    net = model().eval()
    assert torch.equal(*(objective(net, drop_condition=1.0)(each)["denoising"].detach() for each in (given, others)))
    assert not torch.equal(
        *(objective(net, drop_condition=0.0)(each)["denoising"].detach() for each in (given, others))
    )


def test_missing_targets_are_null():
    net, given, dropped = model(condition="action_units").eval(), batch(), batch()
    given.target.action_units[:] = float("nan")
    terms, gradients = learned(objective(net, drop_condition=0.0), given)
    torch.testing.assert_close(terms["denoising"], objective(net, drop_condition=1.0)(dropped)["denoising"])
    assert all(g.isfinite().all() for g in gradients.values() if g is not None)


def test_the_denoiser_reaches_the_encoder_after_one_step():
    goal = objective(model(adapted=False), recognition=0.0, drop_source=0.0)
    synthesis = [p for name, p in goal.model.encoder.named_parameters() if name.startswith("branches.1")]
    optimizer = torch.optim.SGD(goal.model.parameters(), 0.1)
    for reached in (False, True):
        optimizer.zero_grad()
        goal(batch("paired"))["loss"].backward()
        assert all(bool(p.grad.count_nonzero()) == reached for p in synthesis)
        # Through the gates the denoiser teaches the recognition branch, too.
        gates = goal.model.encoder.branches[0][0].parameters()
        assert any(p.grad.count_nonzero() for p in gates) == reached
        optimizer.step()


def test_balancing_pulls_expressions_together():
    def balancing(net, **options):
        return learned(objective(net, balancing=1.0, denoising=0.0, recognition=0.0, **options), batch())

    net = model()
    torch.nn.init.zeros_(net.target.embedding.weight)
    assert balancing(net)[0]["balancing"] == 0
    full, gradients = balancing(model(), drop_condition=0.0, commitment=1.0)
    half, one_sided = balancing(model(), drop_condition=0.0, commitment=0.0)
    torch.testing.assert_close(full["balancing"], 2 * half["balancing"])
    assert half["balancing"] > 0
    # Targets are 1, 2, 3 and 0; the other expressions are those that the step draws.
    other = batch().random.integers("balancing", 0, 4, 4)
    wanted = batch().target.expression
    differ = other != wanted
    assert differ.any()
    for given, sides in ((gradients, [wanted, other]), (one_sided, [wanted])):
        touched = torch.cat([side[differ] for side in sides]).unique()
        rows = given["target.embedding.weight"].abs().sum(1) > 0
        assert torch.equal(torch.where(rows)[0], touched)
    assert balancing(model(), drop_condition=1.0)[0]["balancing"] == 0


def test_a_step_depends_on_seed_and_step_only():
    state = torch.get_rng_state()
    net = model()
    torch.set_rng_state(state)
    (first, a), (second, b) = (learned(objective(copy.deepcopy(net), balancing=1.0), batch()) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert all(torch.equal(a[name], b[name]) for name in a)
    third = objective(copy.deepcopy(net), balancing=1.0)(batch(step=1))
    assert not torch.equal(third["denoising"], first["denoising"])


def test_processes_share_what_one_draws():
    net = model().eval()
    one = objective(net, balancing=1.0)(batch())
    shares = [objective(net, balancing=1.0, drop_condition=0.0)(batch(rank=r, world=2)) for r in range(2)]
    one = objective(net, balancing=1.0, drop_condition=0.0)(batch())
    for name in ("denoising", "balancing"):
        torch.testing.assert_close((shares[0][name] + shares[1][name]) / 2, one[name], rtol=1e-4, atol=1e-6)


def test_bfloat16_autocast_stays_near():
    losses = []
    for enabled in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            terms = objective(snr_gamma=5.0, balancing=1.0)(batch())
        terms["loss"].backward()
        assert terms["loss"].dtype == torch.float32
        losses.append(terms["loss"].item())
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_through_the_loop(tmp_path):
    goal = objective(snr_gamma=5.0)
    config = TrainingConfig(steps=2, batch_size=8, precision="no", ema_decay=0.5, log_every=1)
    result = fit(
        players=[Player("generator", goal)],
        stream=lambda step: batch(step=step),
        config=config,
        accelerator=build_accelerator(),
        directory=tmp_path,
        progress=False,
    )
    assert result.steps == 2 and not goal.model.training
    assert {"generator/denoising", "generator/expression"} <= set(result.history[0]["losses"])


def test_a_handful_of_pairs_by_heart():
    """Four persons whose two expressions differ by a bar; half of the loss is learned away in a few dozen steps."""
    images = torch.linspace(40, 220, 4).repeat_interleave(2).byte().view(8, 1, 1, 1).repeat(1, 1, 32, 32)
    images[::2, :, 20:24, 8:24] = 0
    images[1::2, :, 20:24, 8:24] = 255
    faces = FaceTable(images=images, classes=CLASSES[:2], expression=torch.arange(8) % 2)
    given, others = faces.batch(torch.arange(8)), faces.batch(torch.arange(8) ^ 1)
    goal = objective(model(adapted=False, classes=CLASSES[:2]))

    def terms(step):
        return goal(EditBatch(given, others, given, torch.ones(8, dtype=torch.bool), StepRandom(0, step)))

    before = terms(999)["denoising"]
    optimizer = torch.optim.AdamW(goal.model.parameters(), 3e-3)
    for step in range(48):
        optimizer.zero_grad()
        terms(step)["loss"].backward()
        optimizer.step()
    assert terms(999)["denoising"] < before / 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"drop_source": 1.5}, r"drop_source is a share in \[0, 1\], not 1.5"),
        ({"drop_condition": math.nan}, r"drop_condition is a share in \[0, 1\], not nan"),
        ({"snr_gamma": 0.0}, "snr_gamma must be above 0"),
        ({"snr_gamma": math.nan}, "snr_gamma must be above 0, not nan"),
        ({"times": "late"}, "unknown times 'late': use uniform or logit_normal"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        DenoisingOptions(**options)


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["denoising", "balancing", "commitment", "sharing"])
def test_weights_out_of_range(name, weight):
    with pytest.raises(InputError, match=f"the weight {name} must be a finite number from 0 up, not {weight}"):
        DenoisingOptions(**{name: weight})


def test_balancing_needs_classes():
    with pytest.raises(InputError, match="the network is conditioned on action_units: set balancing to 0"):
        objective(model(condition="action_units"), balancing=1.0)
