"""Small checks from which the contracts of reports are put together: (value, path) → nothing, or ValueError."""

import math
from collections.abc import Callable
from typing import Any

Check = Callable[[object, str], None]


def check_plain_json(value: object, path: str) -> None:
    """Only what JSON can say: text keys, and no NaN, infinity, tensor or numpy scalar."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"{short(path)}: key {key!r} is not text")
            check_plain_json(item, f"{path}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            check_plain_json(item, f"{path}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{short(path)}: {value} is not allowed, use null")
    elif value is not None and type(value) not in (str, int, float, bool):
        raise ValueError(f"{short(path)}: {type(value).__name__} is not a JSON type")


def object_of(required: dict[str, Check], optional: dict[str, Check] | None = None) -> Check:
    """An object with these keys, and perhaps those; further ones are allowed."""

    def check(value: Any, path: str) -> None:
        check_is(value, dict, path, "an object")
        for key, inner in required.items():
            here = f"{path}.{key}"
            if key not in value:
                raise ValueError(f"{short(here)}: missing")
            inner(value[key], here)
        for key, inner in (optional or {}).items():
            if key in value:
                inner(value[key], f"{path}.{key}")

    return check


def mapping_of(inner: Check, *, filled: bool = False) -> Check:
    """An object whose every value passes."""

    def check(value: Any, path: str) -> None:
        check_is(value, dict, path, "an object")
        if filled and not value:
            raise ValueError(f"{short(path)}: is empty")
        for key, item in value.items():
            inner(item, f"{path}.{key}")

    return check


def list_of(inner: Check, *, filled: bool = False) -> Check:
    """A list whose every item passes."""

    def check(value: Any, path: str) -> None:
        check_is(value, list, path, "a list")
        if filled and not value:
            raise ValueError(f"{short(path)}: is empty")
        for index, item in enumerate(value):
            inner(item, f"{path}[{index}]")

    return check


def number(low: float = -math.inf, high: float = math.inf) -> Check:
    """A number within bounds."""

    def check(value: object, path: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{short(path)}: must be a number, not {value!r}")
        if not low <= value <= high:
            raise ValueError(f"{short(path)}: {value} is not within {low} and {high}")

    return check


def count(value: object, path: str) -> None:
    """An integer of at least 0."""
    if type(value) is not int or value < 0:
        raise ValueError(f"{short(path)}: must be a count, not {value!r}")


def integer(value: object, path: str) -> None:
    """An integer."""
    if type(value) is not int:
        raise ValueError(f"{short(path)}: must be an integer, not {value!r}")


def flag(value: object, path: str) -> None:
    """True or false."""
    check_is(value, bool, path, "true or false")


def text(value: object, path: str) -> None:
    """Text."""
    check_is(value, str, path, "text")


def or_null(inner: Check) -> Check:
    """Null, or what passes."""
    return lambda value, path: None if value is None else inner(value, path)


def interval(low: float, high: float) -> Check:
    """A pair [low, high] within bounds."""

    def check(value: Any, path: str) -> None:
        list_of(number(low, high))(value, path)
        if len(value) != 2 or value[0] > value[1]:
            raise ValueError(f"{short(path)}: must be [low, high], not {value}")

    return check


def by_seed(value: object, path: str) -> None:
    """The word seed."""
    if value != "seed":
        raise ValueError(f"{short(path)}: must be 'seed', not {value!r}")


def check_is(value: object, kind: type, path: str, name: str) -> None:
    """A value of a kind, called ``name`` in the error."""
    if not isinstance(value, kind):
        raise ValueError(f"{short(path)}: must be {name}, not {type(value).__name__}")


def short(path: str) -> str:
    """A path without the name of the whole."""
    return path.removeprefix("report.")
