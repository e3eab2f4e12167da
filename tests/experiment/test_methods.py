import pytest

from synthmtl.errors import InputError
from synthmtl.experiment.methods import METHODS, select_methods


def test_all_that_the_data_allow():
    assert list(select_methods(None, rendered=True)) == list(METHODS)
    assert list(select_methods(None, rendered=False)) == [name for name in METHODS if name != "oracle"]


def test_order_of_the_table_not_of_the_wish():
    assert list(select_methods(["gated", "plain"], rendered=False)) == ["plain", "gated"]


@pytest.mark.parametrize(
    ("names", "rendered", "message"),
    [(["nosuch"], True, "unknown method 'nosuch'"), (["oracle"], False, "rendered faces only"), ([], True, "empty")],
)
def test_refused(names, rendered, message):
    with pytest.raises(InputError, match=message):
        select_methods(names, rendered=rendered)


def test_fine_tuned_methods_differ_in_the_filling_only():
    settings = ("network", "balanced_sampling", "class_weighted", "logit_adjustment")
    fine_tuned = [METHODS[name] for name in ("gated_balanced", "diluted", "oracle")]
    assert len({tuple(getattr(method, name) for name in settings) for method in fine_tuned}) == 1
    assert {method.fill for method in fine_tuned} == {"synthesized", "real", "rendered"}
