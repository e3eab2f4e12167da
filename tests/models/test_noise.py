import math

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
)

from synthmtl.errors import InputError
from synthmtl.models.noise import SOLVERS, TIMESTEPS, NoiseSchedule

PAIRS = [(prediction, solver) for prediction, solvers in SOLVERS.items() for solver in solvers]


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_velocity_as_diffusers_has_it():
    schedule = NoiseSchedule("v")
    theirs = DDPMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction")
    clean, noise, times = drawn(5, 1, 4, 4), drawn(5, 1, 4, 4, seed=1), torch.tensor([0, 1, 300, 700, 999])
    assert torch.equal(schedule.times(times / TIMESTEPS + 1e-4), times)
    torch.testing.assert_close(schedule.noisy(clean, noise, times), theirs.add_noise(clean, noise, times))
    torch.testing.assert_close(schedule.target(clean, noise, times), theirs.get_velocity(clean, noise, times))


def test_flow_as_diffusers_has_it():
    schedule, theirs = NoiseSchedule("flow"), FlowMatchEulerDiscreteScheduler()
    clean, noise = drawn(4, 1, 4, 4), drawn(4, 1, 4, 4, seed=1)
    times = theirs.timesteps[torch.tensor([0, 250, 600, 999])]
    noisy = schedule.noisy(clean, noise, times)
    torch.testing.assert_close(noisy, theirs.scale_noise(clean, times, noise))
    # One Euler step along the target, from any time to 0, ends at the face.
    target = schedule.target(clean, noise, times)
    for i in range(4):
        theirs.set_timesteps(sigmas=[float(times[i]) / TIMESTEPS])
        step = theirs.step(target[i : i + 1], theirs.timesteps[0], noisy[i : i + 1]).prev_sample
        torch.testing.assert_close(step, clean[i : i + 1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("prediction", SOLVERS)
def test_predictions_and_faces_mean_each_other(prediction):
    schedule = NoiseSchedule(prediction)
    clean, noise, times = drawn(3, 1, 4, 4), drawn(3, 1, 4, 4, seed=1), schedule.times(torch.tensor([0.05, 0.5, 0.95]))
    noisy, target = schedule.noisy(clean, noise, times), schedule.target(clean, noise, times)
    torch.testing.assert_close(schedule.clean(noisy, target, times), clean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(schedule.predicted(noisy, clean, times), target, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("prediction", "name"), PAIRS)
@pytest.mark.parametrize("steps", [1, 3, 8, 99, 100, 500])
def test_as_many_evaluations_as_asked_for(prediction, name, steps):
    schedule = NoiseSchedule(prediction)
    solver = schedule.solver(name)
    times, called = schedule.plan(solver, steps, torch.device("cpu"))
    assert len(times) == len(called) == len(solver.timesteps) == steps
    assert (times.diff() < 0).all() and times[-1] > 0 and 0.98 * TIMESTEPS < times[0] <= TIMESTEPS
    # Where the solver thinks that it is, is where the network is told that it is.
    alpha, sigma = schedule.rates(times)
    if hasattr(solver, "sigmas"):
        ratio = sigma if prediction == "flow" else sigma / alpha
        torch.testing.assert_close(solver.sigmas[:-1], ratio.flatten(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("prediction", "name"), PAIRS)
@pytest.mark.parametrize("strength", [0.7, 0.25])
def test_a_part_of_the_way_has_as_many_steps(prediction, name, strength):
    schedule = NoiseSchedule(prediction)
    for steps in (1, 8, 60):
        solver = schedule.solver(name)
        times, called = schedule.plan(solver, steps, torch.device("cpu"), strength)
        assert len(times) == len(called) == steps and (times.diff() < 0).all() and times[-1] > 0
        assert steps == 1 or times[0] == pytest.approx(strength * TIMESTEPS, rel=0.06)
        if hasattr(solver, "sigmas"):
            alpha, sigma = schedule.rates(times)
            ratio = sigma if prediction == "flow" else sigma / alpha
            torch.testing.assert_close(solver.sigmas[-steps - 1 : -1], ratio.flatten(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("prediction", "name"), [pair for pair in PAIRS if pair[1] != "ddim"])
@pytest.mark.parametrize("steps", [2, 8])
def test_strength_is_where_the_first_step_lies(prediction, name, steps):
    schedule = NoiseSchedule(prediction)
    strengths = (0.5, 0.75, 0.9, 0.99, 1.0)
    plans = [schedule.plan(schedule.solver(name), steps, torch.device("cpu"), strength) for strength in strengths]
    first = [float(times[0]) for times, _ in plans]
    assert first == pytest.approx([strength * TIMESTEPS for strength in strengths], rel=0.01)
    assert first == sorted(set(first))
    whole, _ = schedule.plan(schedule.solver(name), steps, torch.device("cpu"))
    assert torch.equal(plans[-1][0], whole)


@pytest.mark.parametrize("steps", [2, 8])
def test_ddim_starts_where_a_whole_way_has_a_step(steps):
    schedule = NoiseSchedule("v")
    for strength in (0.5, 0.75, 0.9, 0.99):
        times, _ = schedule.plan(schedule.solver("ddim"), steps, torch.device("cpu"), strength)
        assert times[0] + 1 == pytest.approx(TIMESTEPS * steps / math.ceil(steps / strength), abs=1)
        assert times[0] < strength * TIMESTEPS


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_strength_knows_the_shift_of_a_given_solver(shift):
    schedule = NoiseSchedule("flow")
    for given in (
        FlowMatchEulerDiscreteScheduler(shift=shift),
        DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift),
    ):
        times, _ = schedule.plan(schedule.solver(given), 8, torch.device("cpu"), 0.6)
        assert times[0] == pytest.approx(600, rel=0.01) and (times.diff() < 0).all() and times[-1] > 0


@pytest.mark.parametrize(("strength", "most"), [(0.29, 145), (0.35, 175), (0.41, 205)])
def test_as_many_steps_as_the_message_says(strength, most):
    schedule = NoiseSchedule("v")
    for name in SOLVERS["v"]:
        times, _ = schedule.plan(schedule.solver(name), most, torch.device("cpu"), strength)
        assert len(times) == most
        with pytest.raises(
            InputError, match=rf"steps must lie in \[1, {most}\] at strength {strength}, not {most + 1}"
        ):
            schedule.plan(schedule.solver(name), most + 1, torch.device("cpu"), strength)
    with pytest.raises(InputError, match="strength 0.001 is less than one of 500 steps takes away: use a greater one"):
        schedule.plan(schedule.solver(), 1, torch.device("cpu"), 0.001)


COSINE = {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction"}
FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}


@pytest.mark.parametrize(
    ("prediction", "kind", "settings", "named"),
    [
        ("v", DDIMScheduler, {"num_train_timesteps": 100}, "num_train_timesteps=100 .*: set it to 1000"),
        ("v", DDIMScheduler, {"beta_schedule": "linear"}, "other noise levels .*: set beta_schedule to 'squaredcos"),
        ("v", DDIMScheduler, {"trained_betas": [0.01] * TIMESTEPS}, "other noise levels"),
        ("v", DDIMScheduler, {"trained_betas": [0.01] * 10}, "other noise levels"),
        ("v", DDIMScheduler, {"rescale_betas_zero_snr": True}, "other noise levels"),
        ("v", DDIMScheduler, {"thresholding": True}, "thresholding=True .*: set it to False"),
        ("v", DPMSolverMultistepScheduler, {"beta_schedule": "linear"}, "other noise levels"),
        ("v", DPMSolverMultistepScheduler, {"thresholding": True}, "thresholding=True"),
        ("v", DPMSolverMultistepScheduler, {"use_flow_sigmas": True}, "use_flow_sigmas=True"),
        ("v", DPMSolverMultistepScheduler, {"use_karras_sigmas": True}, "use_karras_sigmas=True"),
        ("v", DPMSolverMultistepScheduler, {"use_exponential_sigmas": True}, "use_exponential_sigmas=True"),
        ("v", DPMSolverMultistepScheduler, {"use_beta_sigmas": True}, "use_beta_sigmas=True"),
        ("v", DPMSolverMultistepScheduler, {"use_lu_lambdas": True}, "use_lu_lambdas=True"),
        ("v", DPMSolverMultistepScheduler, {"use_dynamic_shifting": True}, "use_dynamic_shifting=True"),
        ("v", DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}, "set it to 'dpmsolver\\+\\+'"),
        ("flow", DPMSolverMultistepScheduler, {"use_flow_sigmas": False}, "use_flow_sigmas=False .*: set it to True"),
        ("flow", DPMSolverMultistepScheduler, {"flow_shift": 0.0}, "shifts noise levels by 0.0"),
        ("flow", DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}, "algorithm_type"),
        ("flow", DPMSolverMultistepScheduler, {"num_train_timesteps": 100}, "num_train_timesteps=100"),
        ("flow", FlowMatchEulerDiscreteScheduler, {"num_train_timesteps": 100}, "num_train_timesteps=100"),
        ("flow", FlowMatchEulerDiscreteScheduler, {"invert_sigmas": True}, "invert_sigmas=True"),
        ("flow", FlowMatchEulerDiscreteScheduler, {"use_dynamic_shifting": True}, "use_dynamic_shifting=True"),
        ("flow", FlowMatchEulerDiscreteScheduler, {"shift_terminal": 0.1}, "shift_terminal=0.1 .*: set it to None"),
        ("flow", FlowMatchEulerDiscreteScheduler, {"stochastic_sampling": True}, "stochastic_sampling=True"),
        ("flow", FlowMatchEulerDiscreteScheduler, {"use_karras_sigmas": True}, "use_karras_sigmas=True"),
    ],
)
def test_settings_that_solve_something_else(prediction, kind, settings, named):
    usual = COSINE if prediction == "v" else FLOW if kind is DPMSolverMultistepScheduler else {}
    with pytest.raises(InputError, match=f"{kind.__name__} .*{named}") as caught:
        NoiseSchedule(prediction).solver(kind(**(usual | settings)))
    assert "\n" not in str(caught.value)


def test_steps_and_clipping_of_a_given_solver_are_ours():
    schedule = NoiseSchedule("v")
    for given in (
        DDIMScheduler(**COSINE),  # by itself it clips, and its only step of one lies at time 0
        DDIMScheduler(**COSINE, timestep_spacing="linspace", steps_offset=1),
        DPMSolverMultistepScheduler(**COSINE, timestep_spacing="leading", lambda_min_clipped=1.0),
    ):
        own = schedule.solver("ddim" if isinstance(given, DDIMScheduler) else "dpm")
        made = schedule.solver(given)
        assert not made.config.get("clip_sample")
        for steps in (1, 8, 500):
            times, _ = schedule.plan(made, steps, torch.device("cpu"))
            assert torch.equal(times, schedule.plan(own, steps, torch.device("cpu"))[0])


def test_solvers_by_name_or_example():
    schedule = NoiseSchedule("v")
    assert type(schedule.solver()) is type(schedule.solver("dpm"))
    example = schedule.solver("ddim")
    again = schedule.solver(example)
    assert again is not example and again.config == example.config
    with pytest.raises(InputError, match="no solver 'flow' for v prediction: use one of dpm, ddim"):
        schedule.solver("flow")
    for wrong in (EulerDiscreteScheduler(), NoiseSchedule("flow").solver("dpm"), FlowMatchEulerDiscreteScheduler()):
        with pytest.raises(InputError, match="cannot solve for v prediction: use one of dpm, ddim"):
            schedule.solver(wrong)
    with pytest.raises(InputError, match="unknown prediction 'noise': use one of v, flow"):
        NoiseSchedule("noise")
    with pytest.raises(InputError, match=r"steps must lie in \[1, 500\], not 0"):
        schedule.plan(schedule.solver(), 0, torch.device("cpu"))
    with pytest.raises(InputError, match=r"steps must lie in \[1, 100\] at strength 0.2, not 101"):
        schedule.plan(schedule.solver("ddim"), 101, torch.device("cpu"), 0.2)
