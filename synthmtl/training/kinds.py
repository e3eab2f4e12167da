"""Values of options, held against the annotations of the fields that take them."""

from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from synthmtl.errors import InputError

_MISFIT = object()
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text", NoneType: "null"}
_NUMBERS: dict[Any, type] = {int: Integral, float: Real}


def fitted(name: str, value: Any, hint: Any) -> Any:
    """An option's value as its annotation has it: sequences become the kind that it names, all else stays as it is.

    Args:
        name: of the option, for the message.
        value: what was given.
        hint: the annotation.

    Raises:
        InputError: if the value is none of that kind.
    """
    found = _fit(value, hint)
    if found is _MISFIT:
        raise InputError(f"{name} is {value!r}: it must be {_words(hint)}")
    return found


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, UnionType)


def _fit(value: Any, hint: Any) -> Any:
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if hint is Any:
        return value
    if _is_union(hint):
        return next((found for one in inner if (found := _fit(value, one)) is not _MISFIT), _MISFIT)
    if kind is Literal:
        return value if any(type(value) is type(one) and value == one for one in inner) else _MISFIT
    if kind in _NUMBERS:
        return value if isinstance(value, _NUMBERS[kind]) and not isinstance(value, bool) else _MISFIT
    if kind in (list, tuple):
        if not isinstance(value, (list, tuple)):
            return _MISFIT
        fixed = kind is tuple and bool(inner) and inner[-1] is not Ellipsis
        hints = inner if fixed else (*inner[:1], Any)[:1] * len(value)
        parts = [_fit(*each) for each in zip(value, hints, strict=False)]
        return kind(parts) if len(value) == len(hints) and _MISFIT not in parts else _MISFIT
    if kind is dict and inner and isinstance(value, dict):
        pairs = [(_fit(key, inner[0]), _fit(one, inner[1])) for key, one in value.items()]
        return _MISFIT if any(_MISFIT in pair for pair in pairs) else dict(pairs)
    return value if isinstance(value, kind) else _MISFIT


def _words(hint: Any) -> str:
    """What an annotation takes, in words."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if _is_union(hint):
        return " or ".join(map(_words, inner))
    if kind is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if kind is tuple and inner and inner[-1] is not Ellipsis:
        return f"a list of {len(inner)}: {', '.join(map(_words, inner))}"
    if kind in (list, tuple):
        return f"a list, each {_words(inner[0])}" if inner else "a list"
    if kind is dict:
        return f"a mapping, each value {_words(inner[1])}" if inner else "a mapping"
    return "anything" if hint is Any else _WORDS.get(kind, f"a {getattr(kind, '__name__', kind)}")
