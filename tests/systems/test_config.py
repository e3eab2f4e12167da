"""Options of the multi-task recipes: variants change exactly what they name."""

import dataclasses
from dataclasses import dataclass, field

import pytest

from synthmtl.errors import InputError
from synthmtl.systems import LossOptions, Source, SystemOptions
from synthmtl.systems.config import check_batches, check_options, chosen_variants, file_hashes, override, smoke
from synthmtl.training import TrainingConfig


@dataclass
class Model:
    size: str = "cpu"
    tasks: list[str] = field(default_factory=lambda: ["expression", "landmarks"])
    sharing: str = "hard"
    widths: tuple[int, ...] = (4, 8)
    options: dict = field(default_factory=dict)


@dataclass
class Options(SystemOptions):
    model: Model = field(default_factory=Model)


def test_override_changes_what_it_names_and_nothing_else():
    options = Options(data={"a": Source(), "b": Source(path="there")})
    changed = override(options, {"model.sharing": "leaky", "data.b.train": False, "training.learning_rate": 1})
    assert changed.model == dataclasses.replace(options.model, sharing="leaky")
    assert changed.data == {"a": options.data["a"], "b": dataclasses.replace(options.data["b"], train=False)}
    assert changed.training == dataclasses.replace(options.training, learning_rate=1)
    assert options == Options(data={"a": Source(), "b": Source(path="there")}), "the original stays as it was"


def test_override_keeps_kinds_of_sequences():
    changed = override(Options(), {"model.tasks": ("expression",), "model.widths": [2, 3]})
    assert changed.model.tasks == ["expression"] and changed.model.widths == (2, 3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model.sharin": "hard"}, "no option 'sharin'"),
        ({"modell": 1}, "no option 'modell'"),
        ({"model.sharing.x": 1}, "no option 'x'"),
        ({"data.fer.train": False}, "no 'fer', only rendered"),
        ({"model.sharing": 3}, "model.sharing is 3: it must be text"),
        ({"model.tasks": "expression"}, "must be a list, each text"),
        ({"training.learning_rate": None}, "training.learning_rate is None: it must be a number"),
        ({"training.patience": "many"}, "training.patience is 'many': it must be a whole number or null"),
        ({"training.batch_size": 32.5}, "it must be a whole number"),
        ({"training.betas": [0.9]}, "it must be a list of 2: a number, a number"),
        ({"losses": None}, "losses is None: it is a group"),
        ({"mirror": 1}, "it must be true or false"),
        ({"sampling": {"rendered": "all"}}, "one of size, equal, temperature or a mapping, each value a number"),
        ({"losses.weights.landmarks": "much"}, "losses.weights.landmarks is 'much': it must be a number"),
    ],
)
def test_override_names_what_it_does_not_know(change, said):
    with pytest.raises(InputError, match=f"variants.v: .*{said}"):
        override(Options(), change, where="variants.v")


def test_override_takes_every_kind_that_an_option_may_have():
    options = override(Options(sources=["rendered"]), {"sampling": {"rendered": 1.0}, "sources": None})
    assert options.sampling == {"rendered": 1.0} and options.sources is None
    changed = override(options, {"sampling": "equal", "sources": ("rendered",), "training.patience": 3})
    assert changed.sampling == "equal" and changed.sources == ["rendered"] and changed.training.patience == 3
    changed = override(changed, {"training.patience": None, "losses.weights.landmarks": 1})
    assert changed.training.patience is None and changed.losses.weights == {"landmarks": 1}


def test_changes_that_need_each_other_are_made_together():
    changes = {"training.aggregator_options": {"learning_rate": 0.1}, "training.aggregator": "famo"}
    for order in (changes, dict(reversed(changes.items()))):
        training = override(Options(), order).training
        assert training.aggregator == "famo" and training.aggregator_options == {"learning_rate": 0.1}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"data": {}}, "at least one data set"),
        ({"data": {"a": Source(labels=["expresion"])}}, "data.a.labels: unknown task 'expresion'"),
        ({"data": {"a": Source(score=["testing"])}}, "data.a.score: unknown split 'testing'"),
        ({"data": {"a": Source(score=[])}}, "nothing would be measured"),
        ({"data": {"a": Source(unit_threshold=0)}}, r"data.a.unit_threshold lies in \(0, 1\], not 0"),
        ({"sources": ["fer"]}, "^sources: no data set 'fer'"),
        ({"sources": []}, "^sources: name at least one data set, or leave it out for all"),
        ({"variants": {"v": {"sources": []}}}, "^variants.v: sources: name at least one data set"),
        ({"variants": {"v": {"sources": ["fer"]}}}, "^variants.v: sources: no data set 'fer'"),
        ({"workers": -1}, "^workers must be at least 1, or null, not -1"),
        ({"workers": 0}, "^workers must be at least 1, or null, not 0"),
        ({"variants": {"v": {"losses.association": -0.5}}}, "^variants.v: losses.association must be at least 0"),
        ({"seeds": []}, "seeds"),
        ({"seeds": [1, 1]}, "none twice"),
        ({"variants": {"v": {}}, "only": ["w"]}, "unknown variant 'w': use one of v"),
        ({"variants": {"../v": {}}}, "names a folder"),
        ({"variants": {"v": {"image_size": 32}}}, "variants.v: image_size is the same for all variants"),
        ({"variants": {"v": {"data.rendered.per_class": 9}}}, "data.rendered.per_class is the same for all"),
        ({"variants": {"v": {"training.seed": 9}}}, "training.seed is the same for all variants"),
        ({"training": TrainingConfig(seed=3)}, "--training.seed is 3: every training has a seed of its own"),
        ({"variants": {"v": {"labelled": "al"}}}, "labelled is 'al': it must be one of any, all"),
        ({"variants": {}}, "variants: give at least one row"),
        ({"variants": {"v": {}}, "only": []}, "only: name at least one variant"),
        ({"training": TrainingConfig(patience=3)}, "^training.patience is 3: .*: leave it out"),
        ({"training": TrainingConfig(evaluate_every=3)}, "^training.evaluate_every is 3: .*: leave it out"),
        ({"training": TrainingConfig(precision="bf16")}, "^training.precision is 'bf16': leave it out, and give prec"),
        ({"variants": {"v": {"training.steps": 0}}}, "^variants.v: training steps must be at least 1, not 0"),
        (
            {"precision": "fp16", "variants": {"v": {"training.aggregator": "dwa"}}},
            "dwa does not work in precision fp16",
        ),
        ({"variants": {"v": {"training.patience": 3}}}, "^variants.v: training.patience is 3"),
        ({"variants": {"v": {"training.precision": "no"}}}, "^variants.v: training.precision is 'no'"),
        ({"variants": {"v": {"sampling": "evenly"}}}, "it must be one of size, equal, temperature"),
        ({"variants": {"v": {"model.shared": 1}}}, "variants.v: model.shared: there is no option 'shared'"),
    ],
)
def test_bad_options_are_said_in_one_line(options, said):
    with pytest.raises(InputError, match=said) as caught:
        check_options(Options(**options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ({"association": -0.5}, "losses.association must be at least 0 .*, not -0.5"),
        ({"association": float("nan")}, "losses.association must be at least 0 .*, not nan"),
        ({"association_warmup": -0.1}, r"losses.association_warmup lies in \[0, 1\], not -0.1"),
        ({"association_warmup": 1.5}, r"losses.association_warmup lies in \[0, 1\], not 1.5"),
    ],
)
def test_losses_out_of_range(losses, said):
    with pytest.raises(InputError, match=f"^{said}$"):
        LossOptions(**losses)


def test_batches_divide_among_processes():
    options = Options(
        training=TrainingConfig(batch_size=12),
        variants={"a": {}, "b": {"training.batch_size": 16}, "c": {"training.batch_size": 15}},
    )
    check_batches(options, 1)
    check_batches(dataclasses.replace(options, only=["a", "b"]), 4)
    with pytest.raises(InputError, match="^variants.c: training.batch_size must be a multiple of the 2 processes, not"):
        check_batches(options, 2)


def test_files_are_known_by_their_bytes(tmp_path):
    @dataclass
    class Reading(Model):
        FILES = ("sharing",)

    first, second = (tmp_path / name for name in ("a.txt", "b.txt"))
    first.write_text("1")
    second.write_text("2")
    variants = {"plain": {}, "same": {"model.sharing": str(first)}, "own": {"model.sharing": str(second)}}
    options = Options(model=Reading(sharing=str(first)), variants=variants)
    found = file_hashes(options)
    assert list(found) == ["model.sharing", "variants.own.model.sharing"] and len(set(found.values())) == 2
    second.write_text("1")
    changed = file_hashes(options)
    assert changed["model.sharing"] == found["model.sharing"] == changed["variants.own.model.sharing"]
    assert file_hashes(Options(model=Reading(), variants=variants | {"none": {"model.sharing": "hard"}})) == {
        "variants.same.model.sharing": found["model.sharing"],
        "variants.own.model.sharing": found["model.sharing"],
    }
    assert file_hashes(Options(variants=variants)) == {}, "an option that names no file"


def test_variants_keep_their_order():
    options = Options(variants={"b": {}, "a": {}, "c": {}}, only=["c", "b"])
    assert list(chosen_variants(options)) == ["b", "c"]
    assert list(chosen_variants(dataclasses.replace(options, only=None))) == ["b", "a", "c"]


def test_smoke_shrinks_renders_and_leaves_data_on_disk():
    options = Options(
        data={"a": Source(compound_per_class=50), "b": Source(), "c": Source(path="there", per_class=9)}, preset="smoke"
    )
    small = smoke(options)
    assert small.training.steps < 10 and small.model.size == "tiny" and len(small.seeds) < len(options.seeds)
    assert small.data["a"].per_class < 10 and small.data["a"].compound_per_class > 0
    assert small.data["b"].compound_per_class == 0
    assert small.data["c"] == options.data["c"]
