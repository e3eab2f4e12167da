import pytest
import torch

from synthmtl.experiment.cells import freeze_generation, renew_head
from synthmtl.experiment.config import FaceOptions, ModelOptions
from synthmtl.labels import EXPRESSIONS


@pytest.mark.parametrize("generator", ["gan", "diffusion"])
def test_renewed_head_is_new_and_nothing_else(generator):
    model = ModelOptions(size="tiny", generator=generator).build(EXPRESSIONS, FaceOptions(image_size=32))
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def renewed(seed):
        torch.manual_seed(seed)
        renew_head(model)
        return model.head.linear.weight.detach().clone()

    first, again, other = renewed(0), renewed(0), renewed(1)
    assert torch.equal(first, again) and not torch.equal(first, other)
    after = model.state_dict()
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert "head.linear.weight" in changed and all(name.startswith("head.") for name in changed)
    assert torch.isfinite(model.recognize(torch.zeros(2, 1, 32, 32))).all()


@pytest.mark.parametrize("generator", ["gan", "diffusion"])
def test_what_recognition_has_no_use_for_is_frozen(generator):
    model = ModelOptions(size="tiny", generator=generator).build(EXPRESSIONS, FaceOptions(image_size=32))
    freeze_generation(model)
    model(torch.rand(4, 1, 32, 32, generator=torch.Generator().manual_seed(0))).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None) == name.startswith(("encoder.", "head.")), name
