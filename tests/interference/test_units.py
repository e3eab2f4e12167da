"""Watching a user's own network that is compiled, or copied by a wrapper."""

import copy
from contextlib import ExitStack

import pytest
import torch
from torch import nn

from synthmtl.errors import InputError
from synthmtl.interference import collect_features, gate_maps, gated_units, measured_gates, watched_exchanges
from synthmtl.sharing import build_sharing


class Mine(nn.Module):
    """Two branches that exchange features through a unit between them."""

    def __init__(self, sharing="leaky"):
        super().__init__()
        torch.manual_seed(0)
        self.branches = nn.ModuleList(nn.Conv2d(1, 4, 3) for _ in range(2))
        self.unit = build_sharing(sharing, 4)

    def forward(self, x):
        return torch.stack(self.unit([branch(x).relu() for branch in self.branches])).mean((0, 3, 4))


class Backend:
    """A compiler that changes nothing, and counts the graphs it was given and their runs."""

    def __init__(self):
        self.graphs = self.runs = 0

    def __call__(self, graph, examples):
        self.graphs += 1

        def run(*given):
            self.runs += 1
            return graph.forward(*given)

        return run


@pytest.fixture(autouse=True)
def nothing_compiled():
    """Dynamo gives up on code that was compiled too often, which all networks here share."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def faces():
    return torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def compiled(backend, sharing="leaky", in_place=False):
    """A compiled network that has run before, in both modes."""
    model = Mine(sharing)
    if in_place:
        model.compile(backend=backend)
    else:
        model = torch.compile(model, backend=backend)
    with torch.no_grad():
        model.eval()(faces())
    model.train()(faces())
    return model


def measures(model):
    """Everything that hangs on the hooks, without the units' names, to which a wrapper adds its own."""
    with measured_gates(model, units=gated_units(model)) as meter:
        model(faces())
    openness = [(one.stage, one.direction, one.gate, one.mean, one.channels) for one in meter.result()]
    maps = [one for unit in gate_maps(model, faces()).values() for one in unit.values()]
    features = [one for unit in collect_features(model, [faces()]).values() for one in unit.values()]
    return openness, maps, features


@pytest.mark.parametrize("in_place", [False, True])
def test_a_compiled_network_is_measured_as_a_plain_one(in_place):
    backend = Backend()
    model = compiled(backend, in_place=in_place)
    graphs, runs = backend.graphs, backend.runs
    openness, maps, features = measures(model)
    assert (backend.graphs, backend.runs) == (graphs, runs)
    plain = measures(Mine())
    assert openness == plain[0] and len(openness) == 4
    for found, wanted in ((maps, plain[1]), (features, plain[2])):
        assert len(found) == len(wanted) > 0 and all(map(torch.equal, found, wanted))
    # What was compiled is there as before.
    model(faces())
    assert backend.graphs == graphs and backend.runs > runs


def test_features_of_units_without_gates_in_a_compiled_network():
    found, plain = (
        collect_features(model, [faces()]) for model in (compiled(Backend(), "cross_stitch"), Mine("cross_stitch"))
    )
    assert [name.removeprefix("_orig_mod.") for name in found] == list(plain) and len(plain) == 2
    for one, other in zip(found.values(), plain.values(), strict=True):
        assert all(torch.equal(one[place], other[place]) for place in other)


def test_compiled_code_runs_again_after_an_error():
    backend = Backend()
    model = compiled(backend)
    graphs, runs = backend.graphs, backend.runs
    with pytest.raises(KeyError), measured_gates(model), watched_exchanges(model, lambda unit, exchange: None):
        raise KeyError
    model(faces())
    assert backend.graphs == graphs and backend.runs > runs
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_who_watches_longest_ends_it(order):
    backend = Backend()
    model = compiled(backend)
    watching = [ExitStack(), ExitStack()]
    runs, seen = backend.runs, []
    for hooks in watching:
        hooks.enter_context(watched_exchanges(model, lambda unit, exchange: seen.append(unit)))
    for k, left in zip(order, (2, 0), strict=True):
        watching[k].close()
        assert backend.runs == runs
        seen.clear()
        model(faces())
        assert len(seen) == left
    assert backend.runs > runs


def test_the_callers_stance_is_put_back():
    model = compiled(Backend())
    with torch.compiler.set_stance("fail_on_recompile"):
        with measured_gates(model) as meter:
            model(faces()[..., :7])
        assert len(meter.result()) == 4
        with pytest.raises(RuntimeError, match="recompile"):
            model(faces()[..., :7])


def test_compiled_code_does_not_look_into_itself():
    model = Mine()

    @torch.compile(backend="eager")
    def inside(x):
        with measured_gates(model):
            return model(x)

    with pytest.raises(InputError, match="compiled code cannot look at its own gates"):
        inside(faces())
    assert not any(m._forward_hooks for m in model.modules())
    assert len(measures(model)[0]) == 4


def test_networks_that_are_copied_to_devices_are_refused():
    model = Mine()
    wrapped = nn.DataParallel(model)
    wrapped.device_ids = [0, 1]  # as on a machine with two
    for measure in (lambda: gate_maps(wrapped, faces()), lambda: collect_features(wrapped, [faces()])):
        with pytest.raises(InputError, match="DataParallel runs copies.*measure the module that it wraps"):
            measure()
    assert len(measures(wrapped.module)[0]) == 4


@pytest.mark.parametrize("sharing", ["leaky", "cross_stitch"])
def test_a_copy_of_a_network_that_is_watched_is_told(sharing):
    model = Mine(sharing)
    with pytest.raises(InputError, match="a copy of unit.* was run: measure the module that is wrapped"):
        collect_features(model, [faces()], run=lambda x: copy.deepcopy(model)(x))
