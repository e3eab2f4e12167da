import pytest
import torch
from diffusers import DDPMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler

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
