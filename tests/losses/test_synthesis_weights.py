import pytest

from synthmtl.errors import InputError
from synthmtl.losses import SynthesisWeights


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", vars(SynthesisWeights()))
def test_weights_out_of_range(name, weight):
    with pytest.raises(InputError, match=f"the weight {name} must be a finite number from 0 up, not {weight}"):
        SynthesisWeights(**{name: weight})
