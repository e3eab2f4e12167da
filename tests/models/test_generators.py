import math

import pytest
import torch

from synthmtl.errors import InputError
from synthmtl.labels import CIRCUMPLEX
from synthmtl.models import DiffusionFERSNet, FERSNet
from synthmtl.models.generators import GENERATORS, FaceGenerator, class_targets, sampling_arguments
from synthmtl.models.sampling import SamplingOptions

CLASSES = ("neutral", "happiness", "anger")


def tiny(kind, **config):
    torch.manual_seed(0)
    return kind.sized("tiny", classes=CLASSES, **config).eval()


@pytest.mark.parametrize("kind", GENERATORS.values())
def test_every_generator_makes_each_face_by_its_own_seed(kind):
    network = tiny(kind)
    assert isinstance(network, FaceGenerator)
    faces = torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    target = class_targets(network, torch.tensor([2, 0, 1]))
    arguments = sampling_arguments(network, None)

    def made(rows):
        seeds = [torch.Generator().manual_seed(7 + row) for row in rows]
        return network.synthesize(faces[rows], target[rows], generator=seeds, **arguments)

    together = made([0, 1, 2])
    assert together.shape == faces.shape and together.abs().max() <= 1
    torch.testing.assert_close(made([2]), together[2:], atol=1e-5, rtol=0)
    alone = network.synthesize(faces[1:2], target[1:2], generator=torch.Generator().manual_seed(8), **arguments)
    torch.testing.assert_close(alone, together[1:2], atol=1e-5, rtol=0)


def test_sampling_options_go_to_the_diffusion_model_only():
    options = SamplingOptions(steps=3, solver="ddim", eta=0.5)
    expected = {"steps": 3, "guidance_scale": 1.0, "solver": "ddim", "eta": 0.5, "strength": None}
    assert sampling_arguments(tiny(DiffusionFERSNet), options) == expected
    assert sampling_arguments(tiny(FERSNet), SamplingOptions()) == sampling_arguments(tiny(FERSNet), None) == {}
    with pytest.raises(InputError, match="are for a diffusion generator"):
        sampling_arguments(tiny(FERSNet), options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"steps": 0}, "number of sampling steps"),
        ({"guidance_scale": -1.0}, "guidance_scale must be"),
        ({"guidance_scale": math.nan}, "guidance_scale must be"),
        ({"solver": "flow"}, "no solver 'flow' for v prediction"),
        ({"eta": 0.5}, "only the solver ddim"),
        ({"solver": "ddim", "eta": 1.5}, r"eta lies in \[0, 1\]"),
    ],
)
def test_sampling_that_no_face_comes_out_of(options, said):
    with pytest.raises(InputError, match=said):
        sampling_arguments(tiny(DiffusionFERSNet), SamplingOptions(**options))


def test_a_class_stands_for_what_the_network_is_conditioned_on():
    expression = torch.tensor([1, 2])
    assert class_targets(tiny(FERSNet), expression) is expression
    affect = class_targets(tiny(DiffusionFERSNet, condition="valence_arousal"), expression)
    torch.testing.assert_close(affect, torch.tensor([CIRCUMPLEX["happiness"], CIRCUMPLEX["anger"]]))
    assert class_targets(tiny(DiffusionFERSNet, condition="action_units"), expression).shape == (2, 22)
