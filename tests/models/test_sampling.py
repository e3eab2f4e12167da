import dataclasses

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler

from synthmtl.errors import InputError
from synthmtl.models import DiffusionFERSNet
from synthmtl.models.noise import SOLVERS, NoiseSchedule
from synthmtl.models.sampling import SamplingOptions, draw_noise, sample_faces

CLASSES = ("neutral", "happiness", "anger")
PAIRS = [(prediction, solver) for prediction, solvers in SOLVERS.items() for solver in solvers]
WANTED = torch.tensor([0, 2, 1])
NAN, INF = float("nan"), float("inf")


def faces(count=3, seed=0):
    return torch.rand(count, 1, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def seeds(*numbers):
    return [torch.Generator().manual_seed(number) for number in numbers]


def trained(**config):
    torch.manual_seed(0)
    model = DiffusionFERSNet.sized("tiny", **({"classes": CLASSES} | config)).eval()
    with torch.no_grad():
        for p in model.adapter.parameters():
            p.normal_(std=0.1)
    return model


class Denoiser:
    """Predicts what ``clean(noisy, alpha, sigma)`` means, and counts how often it is asked."""

    def __init__(self, prediction, clean):
        self.schedule, self.clean, self.calls = NoiseSchedule(prediction), clean, 0

    def denoise(self, noisy, timestep, encoded, condition, *, keep_condition=None):
        self.calls += 1
        return self.schedule.predicted(noisy, self.clean(noisy, *self.schedule.rates(timestep)), timestep)


@pytest.mark.parametrize(("prediction", "solver"), PAIRS)
@pytest.mark.parametrize("steps", [1, 8])
def test_an_oracle_is_believed(prediction, solver, steps):
    wanted = faces()
    oracle = Denoiser(prediction, lambda noisy, alpha, sigma: wanted)
    made = sample_faces(
        oracle, draw_noise((3, 1, 32, 32), seeds(1)[0], torch.device("cpu")), WANTED, solver=solver, steps=steps
    )
    torch.testing.assert_close(made, wanted, atol=1e-4, rtol=0)
    assert oracle.calls == steps


@pytest.mark.parametrize(
    ("prediction", "given"),
    [
        ("v", DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")),
        ("v", DPMSolverMultistepScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")),
        ("flow", DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True)),
        ("flow", FlowMatchEulerDiscreteScheduler()),
    ],
)
@pytest.mark.parametrize("steps", [1, 8])
def test_a_given_scheduler_believes_an_oracle_of_any_range(prediction, given, steps):
    wanted = 3 * faces()
    oracle = Denoiser(prediction, lambda noisy, alpha, sigma: wanted)
    noise = draw_noise((3, 1, 32, 32), seeds(1)[0], torch.device("cpu"))
    state = torch.get_rng_state()
    made = sample_faces(oracle, noise, WANTED, solver=given, steps=steps, low=-3.0, high=3.0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(made, wanted, atol=1e-3, rtol=0)
    for strength in (0.9, 0.3):
        part = sample_faces(
            oracle, noise, WANTED, solver=given, steps=steps, low=-3.0, high=3.0, start=faces(), strength=strength
        )
        torch.testing.assert_close(part, wanted, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("prediction", "solver"), PAIRS)
def test_the_equation_is_solved(prediction, solver):
    """Pixels of mean 0.2 and deviation 0.3: the best denoiser is linear, and noise e ends at 0.2 + 0.3 e."""

    def best(noisy, alpha, sigma):
        return 0.2 + 0.09 * alpha / (0.09 * alpha**2 + sigma**2) * (noisy - 0.2 * alpha)

    noise = torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)).clamp(-2, 2)
    errors = []
    for steps in (8, 50):
        made = sample_faces(Denoiser(prediction, best), noise, WANTED[:2], solver=solver, steps=steps)
        errors.append((made - (0.2 + 0.3 * noise)).abs().max())
    assert errors[1] < 0.03 and errors[1] < errors[0] < (0.02 if solver == "dpm" else 0.17)


@pytest.mark.parametrize(("prediction", "solver"), PAIRS)
@pytest.mark.parametrize("strength", [0.97, 0.8, 0.4])
def test_the_equation_is_solved_from_a_noisy_source(prediction, solver, strength):
    """As above: what lies r deviations from the mean of the noisy pixels ends r deviations from that of the faces."""

    def best(noisy, alpha, sigma):
        return 0.2 + 0.09 * alpha / (0.09 * alpha**2 + sigma**2) * (noisy - 0.2 * alpha)

    noise, source = (torch.randn(2, 1, 32, 32, generator=seeds(seed)[0]).clamp(-2, 2) for seed in (0, 1))
    source = 0.2 + 0.3 * source
    oracle = Denoiser(prediction, best)
    options = {"solver": solver, "steps": 50, "strength": strength}
    made = sample_faces(oracle, noise, WANTED[:2], start=source, **options)
    schedule = NoiseSchedule(prediction)
    times, _ = schedule.plan(schedule.solver(solver), 50, torch.device("cpu"), strength)
    alpha, sigma = schedule.rates(times[:1])
    wanted = 0.2 + 0.3 * (alpha * (source - 0.2) + sigma * noise) / (0.09 * alpha**2 + sigma**2).sqrt()
    inside = wanted.abs() < 0.95
    assert (made - wanted)[inside].abs().max() < 0.03 and oracle.calls == 50


def test_strength_leaves_more_or_less_of_the_source():
    """The source is put under noise and not told, so that a network of changes makes faces, too."""
    for diffused in ("change", "face"):
        model, sources = trained(diffused=diffused), faces(3)
        made = {
            strength: model.synthesize(sources, WANTED, generator=seeds(0)[0], strength=strength)
            for strength in (None, 0.05, 0.5, 1.0)
        }
        near = [(made[strength] - sources).abs().mean() for strength in (0.05, 0.5, 1.0)]
        assert near[0] < near[1] < near[2] and near[0] < 0.25
        new = model.synthesize(None, WANTED, generator=seeds(0)[0])
        # At full strength only grain and what the schedule leaves of the source is between it and a new face.
        assert (made[1.0] - new).abs().mean() < 0.5 * (made[0.5] - new).abs().mean()
        assert not torch.allclose(made[None], made[0.5], atol=0.1)


def test_predicted_faces_are_clipped():
    bright = Denoiser("v", lambda noisy, alpha, sigma: torch.full_like(noisy, 3.0))
    made = sample_faces(bright, draw_noise((2, 1, 8, 8), seeds(0)[0], torch.device("cpu")), WANTED[:2])
    torch.testing.assert_close(made, torch.ones(2, 1, 8, 8))


@pytest.mark.parametrize(
    "options",
    [
        {"prediction": "v", "solver": "dpm"},
        {"prediction": "v", "solver": "ddim", "eta": 1.0},
        {"prediction": "flow", "solver": "flow", "guidance_scale": 2.0},
    ],
)
def test_a_face_is_the_same_in_every_batch(options):
    model = trained(prediction=options["prediction"])
    options = {key: value for key, value in options.items() if key != "prediction"}
    sources = faces(5)
    wanted = torch.tensor([0, 2, 1, 1, 0])
    together = model.synthesize(sources, wanted, generator=seeds(3, 1, 4, 1, 5), steps=4, **options)
    for rows in ([2], [4, 0]):
        apart = model.synthesize(
            sources[rows], wanted[rows], generator=seeds(*([3, 1, 4, 1, 5][r] for r in rows)), steps=4, **options
        )
        torch.testing.assert_close(apart, together[rows], atol=1e-5, rtol=0)
    single = model.synthesize(sources[:1], wanted[:1], generator=seeds(3)[0], steps=4, **options)
    torch.testing.assert_close(single, together[:1], atol=1e-5, rtol=0)
    assert not torch.allclose(
        model.synthesize(sources[:1], wanted[:1], generator=seeds(4), steps=4, **options), single, atol=1e-2
    )


def test_nothing_is_drawn_elsewhere():
    model = trained()
    state = torch.get_rng_state()
    for options in ({}, {"solver": "ddim", "eta": 1.0}):
        model.synthesize(faces(), WANTED, generator=seeds(0)[0], steps=2, **options)
        model.synthesize(None, WANTED, generator=seeds(0, 1, 2), steps=2, **options)
    assert torch.equal(torch.get_rng_state(), state)


def test_style_spread_and_grain():
    model, still = trained(), torch.zeros(3, 1, 32, 32)

    def made(seed=0, **options):
        return model.synthesize(faces(), WANTED, **{"generator": seeds(seed)[0], "grain": still, "steps": 2} | options)

    noise = draw_noise((3, 1, 32, 32), seeds(7)[0], torch.device("cpu"))
    assert torch.equal(made(style=noise), made(seed=7)) and torch.equal(made(style=noise.flatten(1)), made(seed=7))
    assert torch.equal(made(seed=1, spread=0.0), made(seed=2, spread=0.0))
    assert torch.equal(made(style=0.5 * noise), made(seed=7, spread=0.5))
    # Noise is drawn before grain, so that a seed gives the same face with and without.
    assert torch.equal(
        made(seed=3), made(seed=3, grain=still, style=draw_noise(still.shape, seeds(3)[0], still.device))
    )


def test_guidance_leans_away_from_the_null_condition():
    model = trained()

    def made(**options):
        return model.synthesize(None, WANTED, generator=seeds(0)[0], steps=1, **options)

    told, null, guided = made(), made(guidance_scale=0.0), made(guidance_scale=1.5)
    nobody = model.synthesize(None, torch.full((3,), -1), generator=seeds(0)[0], steps=1)
    torch.testing.assert_close(null, nobody, atol=1e-5, rtol=0)
    free = (torch.stack([told, null, guided]).abs() < 0.999).all(0)  # unclipped pixels of a single step are linear
    assert free.float().mean() > 0.2
    torch.testing.assert_close(guided[free], (null + 1.5 * (told - null))[free], atol=1e-4, rtol=0)


def test_refused():
    model = trained()
    with pytest.raises(InputError, match="2 generators for 3 faces"):
        model.synthesize(faces(), WANTED, generator=seeds(0, 1))
    for strength in (0, -0.1, 1.01, float("nan")):
        with pytest.raises(InputError, match="strength lies in"):
            model.synthesize(faces(), WANTED, generator=seeds(0)[0], strength=strength)
    with pytest.raises(InputError, match="new faces have none"):
        model.synthesize(None, WANTED, generator=seeds(0)[0], strength=0.5)
    with pytest.raises(InputError, match="only the solver ddim adds noise"):
        model.synthesize(faces(), WANTED, generator=seeds(0)[0], eta=0.5)
    with pytest.raises(InputError, match="no solver 'flow' for v prediction"):
        model.synthesize(faces(), WANTED, generator=seeds(0)[0], solver="flow")


@pytest.mark.parametrize(
    ("options", "message"),
    [({"guidance_scale": value}, "guidance_scale must be at least 0 and finite") for value in (-1.0, NAN, INF)]
    + [({"solver": "ddim", "eta": value}, r"eta lies in \[0, 1\]") for value in (-1.0, 2.0, NAN, INF)],
)
def test_numbers_out_of_range(options, message):
    model = trained()
    with pytest.raises(InputError, match=message):
        model.synthesize(faces(), WANTED, generator=seeds(0)[0], **options)
    with pytest.raises(InputError, match=message):
        dataclasses.replace(SamplingOptions(), **options).check(model.schedule)


@pytest.mark.parametrize("wanted", [[0, 1, 3], [0, -3, 1]])
def test_classes_that_there_are_not(wanted):
    for sources in (faces(), None):
        with pytest.raises(InputError, match="expressions are numbered from 0 to 2 here"):
            trained().synthesize(sources, torch.tensor(wanted), generator=seeds(0)[0])


def test_as_many_targets_as_sources():
    for wanted in (WANTED[:1], WANTED.repeat(2)):
        with pytest.raises(InputError, match=f"3 images for {len(wanted)} expressions: give one for each"):
            trained().synthesize(faces(), wanted, generator=seeds(0)[0])
    with pytest.raises(InputError, match=r"a target by action_units has shape \('B', 22\), not \(3,\)"):
        trained(condition="action_units").synthesize(faces(), WANTED, generator=seeds(0)[0])
