"""The balancing of this package behind imbalanced-learn's interface."""

from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from synthmtl.balance.calibration import JudgeCalibration
from synthmtl.balance.plan import make_plan
from synthmtl.balance.result import BalancingResult
from synthmtl.balance.strategy import Strategy
from synthmtl.balance.synthesize import synthesize_balancing_set
from synthmtl.data.table import FaceTable
from synthmtl.errors import InputError
from synthmtl.labels import EXPRESSIONS, canonical_expression
from synthmtl.models.generators import FaceGenerator

Array = np.ndarray | Tensor
RandomState = int | np.integer | np.random.RandomState | np.random.Generator | torch.Generator | None
_SEEDS = 2**31 - 1
_Layout = Callable[[Tensor], Tensor]


class ExpressionBalancer:
    """Over-samples rare expressions by synthesis, with the manners of imbalanced-learn's samplers.

        balanced = ExpressionBalancer(generator=g, judge=j, calibration=c).fit_resample(table)
        images, labels = ExpressionBalancer(generator=g, filter=False).fit_resample(images, labels)

    Args:
        generator, judge, calibration, filter, device, directory: as for
            :func:`~synthmtl.balance.synthesize.synthesize_balancing_set`.
        sampling_strategy: as for :func:`~synthmtl.balance.strategy.resolve_strategy`; with whole numbers as labels, a
            mapping may have these as keys. A ratio is for two classes only.
        random_state: seed of everything drawn, which a numpy or torch generator is asked for anew at each resampling.
            None: another one each time.
        classes: what whole numbers stand for as labels of arrays, 0 first; None = the generator's classes. Give it
            for data sets with codes of their own.
        options: further keyword arguments of ``synthesize_balancing_set``.

    ``sklearn.base.clone`` gives a balancer with the same parameters and the same networks, which resampling leaves as
    they are.

    Raises:
        InputError: if there is no such option, or the random state is none.

    Attributes:
        sampling_strategy_: {class: faces to add}, of classes that need some; after fitting.
        result_: the :class:`BalancingResult`, with provenance and what was rejected; after resampling. Its
            ``missing`` and ``shortfalls`` say which class has fewer faces than asked for, and why.
    """

    def __init__(
        self,
        *,
        generator: FaceGenerator,
        judge: nn.Module | None = None,
        calibration: JudgeCalibration | None = None,
        sampling_strategy: Strategy = "auto",
        random_state: RandomState = 0,
        classes: Sequence[str] | None = None,
        filter: bool = True,
        device: torch.device | str = "cpu",
        directory: str | Path | None = None,
        **options,
    ):
        self.generator, self.judge, self.calibration = generator, judge, calibration
        self.sampling_strategy, self.random_state = sampling_strategy, random_state
        self.classes, self.filter = classes, filter
        self.device, self.directory, self.options = device, directory, options
        self._check()
        self.sampling_strategy_: dict[str, int] | None = None
        self.result_: BalancingResult | None = None

    def fit_resample(self, faces: FaceTable | Array, labels: Any = None) -> FaceTable | tuple[Array, Any]:
        """All given faces, first and untouched, then the synthesized ones.

        Args:
            faces: a table; or an array or tensor, uint8, of shape (N, H, W), (N, H, W, C) or (N, C, H, W), in the
                generator's size and channels.
            labels: for arrays: N class names in any spelling that ``labels`` knows, or N whole numbers.

        Returns:
            A table; or faces and labels of the kind, shape and type that were given, a synthesized face of a class
            under the name by which the class is first called.

        Raises:
            InputError: as ``synthesize_balancing_set``, or if arrays do not have such a shape, type or labels.
        """
        if isinstance(faces, FaceTable):
            if labels is not None:
                raise InputError("a table carries its labels: leave labels out")
            return FaceTable.concatenate([faces, self._made(faces, self.sampling_strategy)])
        if labels is None or len(labels) != len(faces):
            raise InputError(f"{len(faces)} faces need as many labels, not {0 if labels is None else len(labels)}")
        images, layout = _faces_first(faces, self.generator.config)
        names = [str(name) for name in self.classes or self.generator.classes]
        expressions = [_expression(label, names) for label in _plain(labels)]
        classes = tuple(self.generator.classes)
        if unknown := sorted(set(expressions) - set(classes)):
            raise InputError(f"the generator does not know {unknown[0]}: it makes {', '.join(classes)}")
        indices = torch.tensor([classes.index(e) for e in expressions], dtype=torch.int64)  # also of no face
        table = FaceTable(images, classes, expression=indices)
        made = self._made(table, _by_name(self.sampling_strategy, names))
        called = {expression: label for expression, label in reversed(list(zip(expressions, labels, strict=True)))}
        wanted = [made.classes[i] for i in made.expression.tolist()]
        called |= {name: _code(name, labels, names) for name in set(wanted) - called.keys()}
        codes = [called[name] for name in wanted]
        return _joined(faces, layout(made.images)), _joined(labels, codes)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments of the constructor by name, as of an estimator of scikit-learn; nothing is ``deep`` here."""
        return {name: getattr(self, name) for name in _OWN} | self.options

    def set_params(self, **params: Any) -> "ExpressionBalancer":
        """Change arguments of the constructor; errors as there."""
        for name, value in params.items():
            if name in _OWN:
                setattr(self, name, value)
            else:
                self.options[name] = value
        self._check()
        return self

    def __sklearn_clone__(self) -> "ExpressionBalancer":
        return type(self)(**self.get_params())

    def _check(self) -> None:
        if "seed" in self.options:
            raise InputError("the seed of a balancer is its random_state: give that instead of seed")
        if unknown := sorted(set(self.options) - _OPTIONS):
            raise InputError(f"a balancer has no option {unknown[0]!r}: use some of {', '.join(sorted(_OPTIONS))}")
        _seed(self.random_state, draw=False)

    def _made(self, table: FaceTable, strategy: Strategy) -> FaceTable:
        options = dict(self.options)
        plan = make_plan(
            table,
            strategy,
            seed=_seed(self.random_state),
            candidates=(options.get("max_attempts", 3) + 1) // 2,
            **{name: options.pop(name) for name in ("sources", "max_uses", "match") if name in options},
        )
        self.sampling_strategy_ = {name: count for name, count in plan.requested.items() if count}
        self.result_ = synthesize_balancing_set(
            self.generator,
            self.judge,
            table,
            plan,
            calibration=self.calibration,
            filter=self.filter,
            device=self.device,
            directory=self.directory,
            **options,
        )
        return self.result_.table


_OWN = tuple(name for name in signature(ExpressionBalancer.__init__).parameters if name not in ("self", "options"))
_OPTIONS = set(signature(synthesize_balancing_set).parameters) - {*_OWN, "table", "plan", "seed"}


def _seed(state: RandomState, *, draw: bool = True) -> int:
    """A seed of a random state, from which one is only drawn if it is to be used."""
    if isinstance(state, int | np.integer) and not isinstance(state, bool):
        return int(state)
    draws: dict[type, Callable[[Any], int]] = {
        type(None): lambda _: int(np.random.default_rng().integers(_SEEDS)),
        np.random.RandomState: lambda state: int(state.randint(_SEEDS)),
        np.random.Generator: lambda state: int(state.integers(_SEEDS)),
        torch.Generator: lambda state: int(torch.randint(_SEEDS, (), generator=state, device=state.device)),
    }
    for kind, drawn in draws.items():
        if isinstance(state, kind):
            return drawn(state) if draw else 0
    raise InputError(f"random_state is {state!r}: give a whole number, None, or a generator of numpy or torch")


def _faces_first(faces: Array, config: Any) -> tuple[Tensor, _Layout]:
    """Faces (N, C, H, W) on the CPU, and what puts such faces into the given shape."""
    if not isinstance(faces, np.ndarray | Tensor) or str(faces.dtype).removeprefix("torch.") != "uint8":
        raise InputError(f"faces must be a numpy array or a torch tensor of uint8, not {_kind(faces)}")
    images = torch.as_tensor(np.ascontiguousarray(faces) if isinstance(faces, np.ndarray) else faces).cpu()
    channels, size = config.image_channels, config.image_size
    shapes: dict[tuple[int, ...], tuple[_Layout, _Layout]] = {
        (channels, size, size): (lambda t: t, lambda t: t),
        (size, size, channels): (
            lambda t: rearrange(t, "n h w c -> n c h w"),
            lambda t: rearrange(t, "n c h w -> n h w c"),
        ),
    }
    if channels == 1:
        shapes[size, size] = (lambda t: t[:, None], lambda t: t[:, 0])
    found = shapes.get(tuple(images.shape[1:]))
    if found is None:
        known = " or ".join(str(("N", *shape)).replace("'", "") for shape in shapes)
        raise InputError(f"faces of shape {tuple(images.shape)} do not suit the generator: give {known}")
    return found[0](images).contiguous(), found[1]


def _kind(faces: Any) -> str:
    return f"{type(faces).__name__} of {faces.dtype}" if hasattr(faces, "dtype") else type(faces).__name__


def _plain(labels: Any) -> list:
    return labels.tolist() if isinstance(labels, np.ndarray | Tensor) else list(labels)


def _expression(label: Any, names: Sequence[str]) -> str:
    """The canonical name of a label."""
    if isinstance(label, int | np.integer) and not isinstance(label, bool):
        if not 0 <= label < len(names):
            raise InputError(f"label {label} is no class: use 0 to {len(names) - 1} for {', '.join(names)}")
        label = names[int(label)]
    expression = canonical_expression(label)
    if expression is None:
        raise InputError(f"unknown label {label!r}: use one of {', '.join(EXPRESSIONS)}, an alias, or a whole number")
    return expression


@overload
def _by_name(strategy: Mapping[str, int], names: Sequence[str]) -> Mapping[str, int]: ...


@overload
def _by_name(strategy: Strategy, names: Sequence[str]) -> Strategy: ...


def _by_name(strategy: Strategy, names: Sequence[str]) -> Strategy:
    """A strategy that names classes where it numbered them."""
    if callable(strategy):
        return lambda counts: _by_name(strategy(counts), names)
    if not isinstance(strategy, Mapping):
        return strategy
    return {_expression(key, names) if isinstance(key, int | np.integer) else key: n for key, n in strategy.items()}


def _code(name: str, labels: Any, names: Sequence[str]) -> Any:
    """The label of a class that no face has."""
    if isinstance(next(iter(_plain(labels)), name), str):
        return name
    known = [canonical_expression(other) for other in names]
    if name not in known:
        raise InputError(f"no whole number stands for {name}: name it among the classes ({', '.join(names)})")
    return known.index(name)


def _joined(given: Any, further: Any) -> Any:
    """What was given and what comes after it, as the kind of what was given."""
    if isinstance(given, Tensor):
        return torch.cat([given, torch.as_tensor(further, dtype=given.dtype).to(given.device)])
    if isinstance(given, np.ndarray):
        further = np.asarray(further) if len(further) else given[:0]
        return np.concatenate([given, further.astype(given.dtype) if given.dtype.kind != "U" else further])
    if hasattr(given, "iloc"):  # a series of pandas, which need not be there
        return type(given)([*given, *further], dtype=given.dtype, name=given.name)
    return type(given)([*given, *further]) if isinstance(given, list | tuple) else [*given, *further]
