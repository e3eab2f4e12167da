import torch

from synthmtl.experiment.cells import renew_head
from synthmtl.experiment.config import FaceOptions, ModelOptions
from synthmtl.labels import EXPRESSIONS


def test_renewed_head_is_new_and_nothing_else():
    model = ModelOptions(size="tiny").build(EXPRESSIONS, FaceOptions(image_size=32))
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
