"""The methods that the main job compares: what each name means, and nothing else.

``plain`` is the recognition branch alone. Whatever answers it by more than other training data is compared at equal
capacity: ``plain_matched``, ``class_weighted``, ``oversampled`` and ``logit_adjusted`` are recognizers with as many
parameters as the gated network uses for recognition, and ``hard_sharing`` has one trunk of that size. It and ``gated``
train recognition and synthesis together and then fine-tune recognition; the last three fine-tune the same gated network
on batches of which a fixed share is filled with something, so that they differ in the filling only.
"""

from dataclasses import dataclass

from synthmtl.errors import InputError


@dataclass(frozen=True)
class Method:
    """One row of the table.

    Attributes:
        network: ``plain`` (recognition branch), ``matched`` (as large as the gated network), ``hard`` or ``gated``.
        balanced_sampling: every class equally often in a batch.
        class_weighted: cross-entropy weighted by inverse class frequency.
        logit_adjustment: strength tau of the logit-adjusted loss.
        fill: what the fixed share of each batch is filled with: None, ``synthesized`` faces, ``real`` training faces of
            the same classes drawn again, or true ``rendered`` ones of the same persons.
        about: one sentence for the report.
    """

    network: str
    about: str
    balanced_sampling: bool = False
    class_weighted: bool = False
    logit_adjustment: float = 0.0
    fill: str | None = None


METHODS = {
    "plain": Method("plain", "The recognition branch alone."),
    "plain_matched": Method("matched", "The same with as many parameters as the gated network."),
    "class_weighted": Method("matched", "Cross-entropy weighted by inverse class frequency.", class_weighted=True),
    "oversampled": Method("matched", "Every class equally often in a batch.", balanced_sampling=True),
    "logit_adjusted": Method("matched", "Logit-adjusted cross-entropy (Menon et al., 2021).", logit_adjustment=1.0),
    "hard_sharing": Method("hard", "One trunk of the same size for both tasks, trained together, then fine-tuned."),
    "gated": Method("gated", "Two branches that share through gates, trained together, then fine-tuned."),
    "gated_balanced": Method("gated", "Gated, fine-tuned with synthesized faces in every batch.", fill="synthesized"),
    "diluted": Method("gated", "The control: the same share filled with real faces drawn again.", fill="real"),
    "oracle": Method("gated", "The bound: the same share filled with true renders.", fill="rendered"),
}
"""Methods by the names that reports use."""

NEEDS_RENDERER = ("oracle",)
"""Methods that exist on rendered faces only."""


def select_methods(names: list[str] | None, *, rendered: bool) -> dict[str, Method]:
    """The wanted methods in the order of :data:`METHODS`; None = all that the data allow.

    Raises:
        InputError: if there is no name, one is unknown, or needs rendered faces where there are none.
    """
    if names is not None and not names:
        raise InputError(f"--methods is empty: use some of {', '.join(METHODS)}, or null for all")
    for name in names or ():
        if name not in METHODS:
            raise InputError(f"unknown method {name!r}: use one of {', '.join(METHODS)}")
        if name in NEEDS_RENDERER and not rendered:
            raise InputError(f"method {name!r} needs true renders and exists on rendered faces only")
    wanted = [m for m in METHODS if rendered or m not in NEEDS_RENDERER] if names is None else names
    return {name: method for name, method in METHODS.items() if name in wanted}
