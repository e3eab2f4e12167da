import pytest
import torch
from torch import nn

from synthmtl.errors import InputError
from synthmtl.models.cross_process import CrossProcessBatchNorm2d
from synthmtl.models.trunk import MultiTaskTrunk, normalize_across_processes
from synthmtl.sharing import SHARING_UNITS, NoSharing


def trunk(sharing="leaky", tasks=2, **options):
    torch.manual_seed(0)
    given = {"image_channels": 1, "stem_channels": 4, "stage_channels": (6, 8, 10)}
    return MultiTaskTrunk(tasks=tasks, sharing=sharing, **(given | options))


def images(count=3):
    return torch.rand(count, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def reached(model, task):
    """Names of the parameters that one task's features send a gradient to."""
    model.zero_grad(set_to_none=True)
    model(images())[0][task].square().sum().backward()
    return {name for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("sharing", SHARING_UNITS)
@pytest.mark.parametrize("tasks", [1, 2, 3])
def test_shapes(sharing, tasks):
    model = trunk(sharing, tasks, shared_stages=1)
    features, penalty = model(images())
    assert [tuple(x.shape) for x in features] == [(3, 10, 2, 2)] * tasks
    assert len(model.shared) == 1 and len(model.branches[0]) == 2
    assert len(model.branches) == (1 if model.single_trunk else tasks)
    assert len(model.units) == len(model.projections) == (0 if tasks == 1 else 2)
    assert penalty is None or penalty.shape == ()


def test_one_task_is_the_same_network_whatever_the_unit():
    plain = trunk("none", 1)
    for sharing in ("hard", "leaky", "mtan"):
        other = trunk(sharing, 1, one_unit=True)
        assert torch.equal(other(images())[0][0], plain(images())[0][0])
        assert other.state_dict().keys() == plain.state_dict().keys()


@pytest.mark.parametrize("shared_stages", [0, 2, 3])
def test_what_is_common_without_sharing(shared_stages):
    model = trunk("none", 3, shared_stages=shared_stages)
    first, last = reached(model, 0), reached(model, 2)
    assert {name.split(".")[0] for name in first & last} == ({"stem", "shared"} if shared_stages else {"stem"})
    by_name = dict(model.named_parameters())
    assert {id(by_name[name]) for name in last} == {id(p) for p in model.parameters_of(2)}


@pytest.mark.parametrize("sharing", SHARING_UNITS)
@pytest.mark.parametrize(
    "options", [{}, {"one_unit": True}, {"shared_stages": 3}, {"shared_stages": 1, "norm": ("batch",) * 3}]
)
@pytest.mark.parametrize("tasks", [(0,), (2,), (0, 1)])
def test_the_parameters_of_tasks_are_those_that_get_a_gradient(sharing, options, tasks):
    model = trunk(sharing, 3, **options)
    found = model.parameters_of(*tasks)
    features = model(images())[0]
    sum(features[task].square().sum() for task in tasks).backward()
    assert len({id(p) for p in found}) == len(found)
    assert {id(p) for p in found} == {id(p) for p in model.parameters() if p.grad is not None}


def test_hard_sharing_hands_one_map_to_all():
    model = trunk("hard", 3)
    features, _ = model(images())
    assert features[0] is features[1] is features[2]
    assert reached(model, 0) == reached(model, 2)


def test_one_unit_for_the_stages_that_are_not_shared():
    own, one = trunk(tasks=3, shared_stages=1), trunk(tasks=3, shared_stages=1, one_unit=True)
    assert [unit.channels for unit in own.units] == [8, 10] and [unit.channels for unit in one.units] == [10]
    assert sum(p.numel() for p in one.projections.parameters()) == 2 * 3 * 8 * 10
    for unit in one.units[0].units.values():
        unit.forced_take = 0.0
    apart = trunk("none", 3, shared_stages=1)
    apart.load_state_dict({k: v for k, v in one.state_dict().items() if not k.startswith(("units", "projections"))})
    for a, b in zip(one(images())[0], apart(images())[0], strict=True):
        assert torch.equal(a, b)


def test_each_task_has_its_normalization():
    model = trunk("none", norm=("batch", "instance"))
    kinds = [type(branch[0][0].first[1]) for branch in model.branches]
    assert kinds == [CrossProcessBatchNorm2d, nn.InstanceNorm2d] and type(model.stem[0][1]) is CrossProcessBatchNorm2d


def test_penalties_of_all_stages_add_up():
    model = trunk("sparse", 3, shared_stages=1)
    penalty = model(images())[1]
    torch.testing.assert_close(penalty, sum(unit.penalty() for unit in model.units))
    assert penalty > 0


@pytest.mark.parametrize("sharing", ["leaky", "cross_stitch", "bottleneck", "mtan"])
def test_tasks_meet_after_chosen_stages_only(sharing):
    model, apart = trunk(sharing, sharing_options={"stages": [1]}), trunk("none")
    apart.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("units")})
    assert [type(unit) is NoSharing for unit in model.units] == [True, False, True]
    levels, _ = model.eval().walk(images())
    without, _ = apart.eval().walk(images())
    for stage, equal in ((1, True), (2, False)):
        assert equal == all(torch.equal(a, b) for a, b in zip(levels[stage], without[stage], strict=True))
    everywhere = trunk(sharing, sharing_options={"stages": [0, 1, 2]})
    assert everywhere.state_dict().keys() == trunk(sharing).state_dict().keys()


@pytest.mark.parametrize("stages", [[3], [-1], [], [True], "1", 1])
def test_stages_that_there_are_not(stages):
    with pytest.raises(InputError, match="stages is .*, name stages from 0 to 2, or null for all"):
        trunk(sharing_options={"stages": stages})


def test_stages_need_units_that_can_be_left_out():
    with pytest.raises(InputError, match="stages cannot be chosen with one_unit"):
        trunk(sharing_options={"stages": [1]}, one_unit=True)
    with pytest.raises(InputError, match="unit 'hard' has no option 'stages'"):
        trunk("hard", sharing_options={"stages": [1]})


@pytest.mark.parametrize("shared_stages", [-1, 4])
def test_shared_stages_out_of_range(shared_stages):
    with pytest.raises(InputError, match=f"shared_stages is {shared_stages}: use 0 to 3, the number of stages"):
        trunk(shared_stages=shared_stages)


def test_batch_norm_over_processes_keeps_what_was_learned():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, eps=1e-3, momentum=0.01))
    layers(images())
    before = layers.eval()(images())
    state = layers.state_dict()
    normalize_across_processes(layers)
    assert type(layers[1]) is CrossProcessBatchNorm2d and layers[1].momentum == 0.01
    assert layers.state_dict().keys() == state.keys()
    assert torch.equal(layers.eval()(images()), before)
