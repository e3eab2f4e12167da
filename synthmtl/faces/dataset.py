"""Rendered faces as a data set: every label exact, every face from its own seed.

A *subject* has a shape and colors, a *session* of a subject has one pose, light, framing, background and style; the
faces of a session differ in their facial actions and sensor noise only, so that any two of them are an aligned pair.
All draws come from generators seeded by (seed, subject, session, face), never from a common stream: a face is the same
in whatever batch, count or order it is rendered.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from synthmtl.data import FaceTable
from synthmtl.errors import InputError
from synthmtl.faces import anatomy
from synthmtl.faces.head import head
from synthmtl.faces.identity import appearance, shapes
from synthmtl.faces.nuisance import NUISANCES, Kinds, deal, draw_kinds
from synthmtl.faces.session import LUMA, Session, sensor, session_of
from synthmtl.labels import COMPOUND_EXPRESSIONS, EXPRESSIONS, canonical_compound, class_index
from synthmtl.progress import shown

LONG_TAIL = {
    "neutral": 400,
    "happiness": 400,
    "sadness": 250,
    "surprise": 250,
    "anger": 120,
    "fear": 20,
    "disgust": 20,
    "contempt": 20,
}
"""Training faces per expression of the standard long-tailed task."""

_COMPOUND = 500_000
_COUNTERPART = 1_000_000
_RENDER_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class RenderConfig:
    """What to render.

    Attributes:
        counts: faces per expression (names not given: none), or one number for all eight.
        compound_counts: faces per compound expression, or one number for all twelve. They come on top and change no
            other face; ``nuisance_correlation`` does not hold for them.
        image_size: height = width in pixels, 32 to 256.
        channels: 1 (gray) or 3 (RGB).
        subjects: people; each has ``sessions_per_subject`` sessions, and the faces are spread over all sessions.
        subject_offset: number of the first subject; splits use ranges that do not overlap.
        sessions_per_subject: poses and lights per subject.
        seed: of everything.
        intensity_range: of expressions; 1 is the recipe of ``anatomy.RECIPES`` as written.
        co_occurrence: largest coefficient of facial actions added beside the expression.
        pose_degrees: largest yaw, pitch and roll.
        noise: standard deviation of the sensor noise, of the range from black to white.
        style: ``studio`` (clean, as drawn) or ``wild`` (contrast, gamma, blur, noise and framing vary as in photographs
            from the web).
        nuisance_correlation: how strongly light, pose, skin and person go with the expression, see
            ``faces.nuisance``; 0 = not at all, and 1 counts as ``nuisance.LARGEST``, which leaves pairs.
        device: where to render.

    Raises:
        InputError: if a value is out of range, or two spellings of one class have counts.
    """

    counts: dict[str, int] | int = 100
    compound_counts: dict[str, int] | int = 0
    image_size: int = 48
    channels: int = 1
    subjects: int = 100
    subject_offset: int = 0
    sessions_per_subject: int = 2
    seed: int = 0
    intensity_range: tuple[float, float] = (0.55, 1.15)
    co_occurrence: float = 0.5
    pose_degrees: float = 20.0
    noise: float = 0.015
    style: Literal["studio", "wild"] = "studio"
    nuisance_correlation: float = 0.0
    device: str = "cpu"

    def __post_init__(self):
        low, high = self.intensity_range
        checks = {
            "image_size": (32 <= self.image_size <= 256, "from 32 to 256"),
            "channels": (self.channels in (1, 3), "1 or 3"),
            "subjects": (self.subjects >= 1, "at least 1"),
            "subject_offset": (self.subject_offset >= 0, "at least 0"),
            "sessions_per_subject": (self.sessions_per_subject >= 1, "at least 1"),
            "seed": (self.seed >= 0, "at least 0"),
            "intensity_range": (0 <= low <= high <= 1.5, "low <= high in [0, 1.5]"),
            "co_occurrence": (0 <= self.co_occurrence <= 1, "in [0, 1]"),
            "pose_degrees": (0 <= self.pose_degrees <= 45, "in [0, 45]"),
            "noise": (0 <= self.noise <= 0.5, "in [0, 0.5]"),
            "style": (self.style in ("studio", "wild"), "studio or wild"),
            "nuisance_correlation": (0 <= self.nuisance_correlation <= 1, "in [0, 1]"),
        }
        for name, (holds, wanted) in checks.items():
            if not holds:
                raise InputError(f"render: {name} is {getattr(self, name)!r}: it must be {wanted}")
        for name, counts in (("counts", self.class_counts()), ("compound_counts", self.kind_counts())):
            if any(count < 0 for count in counts.values()):
                raise InputError(f"render: {name} is {getattr(self, name)!r}: it must have no negative number")
        if not sum(self.kind_counts().values()):
            raise InputError(f"render: counts is {self.counts!r}: it must name at least one face")
        shown = sum(count > 0 for count in self.class_counts().values())
        if self.nuisance_correlation and self.subjects < shown:
            raise InputError(
                f"render: nuisance_correlation needs a subject for each of the {shown} expressions, not {self.subjects}"
            )

    def class_counts(self) -> dict[str, int]:
        """Faces of each of the eight expressions."""
        if isinstance(self.counts, int):
            return dict.fromkeys(EXPRESSIONS, self.counts)
        named = _named("counts", self.counts, lambda name: EXPRESSIONS[class_index(EXPRESSIONS, name)])
        return {name: named.get(name, 0) for name in EXPRESSIONS}

    def kind_counts(self) -> dict[str, int]:
        """Faces of each of the eight expressions and twelve compound expressions."""
        if isinstance(self.compound_counts, int):
            return self.class_counts() | dict.fromkeys(COMPOUND_EXPRESSIONS, self.compound_counts)
        named = _named("compound_counts", self.compound_counts, _compound)
        return self.class_counts() | {name: named.get(name, 0) for name in COMPOUND_EXPRESSIONS}


def _compound(name: str) -> str:
    found = canonical_compound(name)
    if found is None:
        known = ", ".join(COMPOUND_EXPRESSIONS)
        raise InputError(f"render: unknown compound expression {name!r} in compound_counts: use some of {known}")
    return found


def _named(option: str, counts: dict[str, int], canonical: Callable[[str], str]) -> dict[str, int]:
    """The counts of an option by canonical name, which no two of its spellings may share."""
    named: dict[str, int] = {}
    for spelling, count in counts.items():
        name = canonical(spelling)
        if name in named:
            raise InputError(f"render: {option} names the class {name!r} twice: keep one")
        named[name] = count
    return named


def _schedule(config: RenderConfig) -> list[tuple[int, int, int, int]]:
    """(subject, session, face number within the session, index into ``anatomy.KINDS``) of every face."""
    faces = _correlated_schedule(config) if config.nuisance_correlation else _dealt(config, EXPRESSIONS, 2)
    return sorted(faces + _dealt(config, COMPOUND_EXPRESSIONS, 9, first=_COMPOUND))


def _dealt(config: RenderConfig, names: Sequence[str], key: int, *, first: int = 0) -> list[tuple[int, int, int, int]]:
    """The faces of some kinds, from a generator of their own, numbered from ``first`` within each session.

    Classes, in random order, are dealt like cards round and round the shuffled sessions; a class that is smaller than
    the number of sessions then never meets itself in one, so that its faces nearly always have a partner to pair with.
    """
    rng = np.random.default_rng((config.seed, config.subject_offset, config.subjects, key))
    sessions = config.subjects * config.sessions_per_subject
    counts = config.kind_counts()
    mixed = [names[index] for index in rng.permutation(len(names))]
    deck = np.concatenate([np.full(counts[name], anatomy.KINDS.index(name)) for name in mixed])
    order = rng.permutation(sessions)
    faces = []
    for position, kind in enumerate(deck):
        subject, session = divmod(int(order[position % sessions]), config.sessions_per_subject)
        faces.append((config.subject_offset + subject, session, first + position // sessions, int(kind)))
    return faces


def _kinds(config: RenderConfig) -> Kinds | None:
    if not config.nuisance_correlation:
        return None
    rng = np.random.default_rng((config.seed, config.subject_offset, config.subjects, 6))
    return draw_kinds(list(config.class_counts().values()), config.subjects, seed=config.seed, rng=rng)


def _correlated_schedule(config: RenderConfig) -> list[tuple[int, int, int, int]]:
    rng = np.random.default_rng((config.seed, config.subject_offset, config.subjects, 8))
    each, counts = config.sessions_per_subject, list(config.class_counts().values())
    kinds = _kinds(config)
    assert kinds is not None  # the correlation is above 0
    taken: dict[int, int] = {}
    faces = []
    for place, expression in deal(counts, kinds, each, config.nuisance_correlation, rng):
        taken[place] = taken.get(place, -1) + 1
        faces.append((config.subject_offset + place // each, place % each, taken[place], expression))
    return faces


def _quantiles(config: RenderConfig, kinds: Kinds | None, subject: int, names: Sequence[str], *key: int):
    """Of the nuisances ``names`` of a subject, from a generator of their own; empty without kinds."""
    if kinds is None:
        return {}
    rng = np.random.default_rng((config.seed, subject, *key, 5))
    return {name: kinds.quantile(name, subject - config.subject_offset, rng) for name in names}


def _render_faces(config: RenderConfig, faces: Sequence[tuple[int, int, int, int]], intensity_range) -> FaceTable:
    from synthmtl.faces.renderer import render  # with it comes warp, which only who renders has to wait for

    model = head()
    count = len(faces)
    images = np.empty((count, config.channels, config.image_size, config.image_size), np.uint8)
    coefficients = np.empty((count, len(anatomy.ACTIONS)), np.float32)
    intensity = np.empty(count, np.float32)
    landmarks = np.empty((count, 68, 2), np.float32)
    sessions: list[Session] = []
    known: dict[tuple[int, int], Session] = {}
    kinds = _kinds(config)
    looks = {}
    for subject in {face[0] for face in faces}:
        skin = _quantiles(config, kinds, subject, ["skin"]).get("skin")
        looks[subject] = appearance(config.seed, subject, skin_quantile=skin)
    parts = (range(start, min(start + _RENDER_BATCH, count)) for start in range(0, count, _RENDER_BATCH))
    for part in shown(parts, "rendering", unit="face", total=count, count=len):
        resting = shapes(config.seed, [faces[row][0] for row in part])
        generators = []
        for row, shape in zip(part, resting, strict=True):
            subject, session, number, kind = faces[row]
            generators.append(np.random.default_rng((config.seed, subject, session, number, 4)))
            coefficients[row], intensity[row] = anatomy.sample_actions(
                kind,
                rng=generators[-1],
                intensity_range=intensity_range,
                co_occurrence=config.co_occurrence,
            )
            if (subject, session) not in known:
                known[subject, session] = session_of(
                    shape,
                    looks[subject].skin,
                    model,
                    rng=np.random.default_rng((config.seed, subject, session, 3)),
                    pose_degrees=config.pose_degrees,
                    wild=config.style == "wild",
                    quantiles=_quantiles(config, kinds, subject, NUISANCES[:5], session),
                )
            sessions.append(known[subject, session])
        drawn, landmarks[part.start : part.stop] = render(
            resting,
            coefficients[part.start : part.stop],
            [looks[faces[row][0]] for row in part],
            [sessions[row].view for row in part],
            size=config.image_size,
            device=config.device,
        )
        for row, face, rng in zip(part, drawn, generators, strict=True):
            images[row] = sensor(face, sessions[row], rng=rng, channels=config.channels, noise=config.noise)

    subject_column, session_column, _, kind_column = (torch.tensor(column) for column in zip(*faces, strict=True))
    basic = kind_column < len(EXPRESSIONS)
    units = anatomy.action_units(coefficients)
    feeling = [
        anatomy.valence_arousal(face[3], float(strength), shown)
        for face, strength, shown in zip(faces, intensity, units, strict=True)
    ]
    attributes = {
        name: torch.tensor([getattr(of, name) for of in sessions], dtype=torch.float32)
        for name in ("yaw", "pitch", "roll")
    }
    light = torch.tensor(np.array([of.view.light for of in sessions]), dtype=torch.float32)
    attributes |= dict(zip(("light_x", "light_y", "light_z"), light.unbind(1), strict=True))
    attributes["skin"] = torch.tensor([float(looks[face[0]].skin @ LUMA) for face in faces])
    return FaceTable(
        images=torch.from_numpy(images),
        classes=EXPRESSIONS,
        expression=kind_column.where(basic, -1),
        compound=(kind_column - len(EXPRESSIONS)).where(~basic, -1),
        action_units=torch.from_numpy(units),
        landmarks=torch.from_numpy(landmarks).clamp_(0, 1),
        valence_arousal=torch.from_numpy(np.stack(feeling)),
        subject=subject_column,
        session=session_column,
        attributes=attributes | {"intensity": torch.from_numpy(intensity)},
        files=[f"rendered/s{face[0]:04d}-n{face[1]}-{face[2]:06d}" for face in faces],
    )


def render_faces(config: RenderConfig) -> FaceTable:
    """All faces that ``config`` asks for, ordered by subject and session, over the eight expressions.

    Every label is exact: ``expression`` or, in its place, ``compound``; ``action_units`` (``anatomy.UNIT_ACTIONS``),
    ``landmarks``, ``valence_arousal`` (``anatomy.valence_arousal``), ``subject``, ``session``, and as attributes
    ``yaw``, ``pitch``, ``roll`` (degrees: toward the image's right, up, clockwise), ``light_x``, ``light_y``,
    ``light_z`` (unit vector toward the light: right, up, toward the viewer), ``skin`` (its color's luminance in [0, 1])
    and the expression's ``intensity`` (0 for neutral).
    """
    return _render_faces(config, _schedule(config), config.intensity_range)


def counterparts(
    table: FaceTable, config: RenderConfig, expression: Tensor | Sequence[int], *, draw: int = 0
) -> FaceTable:
    """True renders of the subjects and sessions of given faces with other expressions, as a perfect editor would make.

    Args:
        table: faces that came from ``render_faces(config)``.
        config: the one that they came from.
        expression: (N,) wanted index into ``labels.EXPRESSIONS`` for each row of ``table``.
        draw: number of this call; calls with different numbers draw different faces.

    Returns:
        N faces in the rows' order, with fresh facial actions and noise.

    Raises:
        InputError: if rows have no subject or session, their number is not that of ``expression``, or one of these is
            no expression.
    """
    wanted = [int(value) for value in torch.as_tensor(expression)]
    if len(wanted) != len(table):
        raise InputError(f"counterparts: {len(wanted)} expressions for {len(table)} faces: give one for each face")
    if len(table) and int(torch.minimum(table.subject, table.session).min()) < 0:
        raise InputError("counterparts: a face has no subject or session: give faces made by render_faces")
    if not all(0 <= index < len(EXPRESSIONS) for index in wanted):
        raise InputError(f"counterparts: an expression is no index into {len(EXPRESSIONS)} expressions: name another")
    taken: dict[tuple[int, int], int] = {}
    faces = []
    for subject, session, index in zip(table.subject.tolist(), table.session.tolist(), wanted, strict=True):
        number = taken.get((subject, session), 0)
        taken[subject, session] = number + 1
        faces.append((subject, session, _COUNTERPART * (draw + 1) + number, index))
    return _render_faces(config, faces, config.intensity_range)


def render_splits(
    train_counts: dict[str, int] | int = LONG_TAIL,
    per_class_validation: int = 40,
    per_class_test: int = 160,
    *,
    config: RenderConfig | None = None,
    train_subjects: int = 120,
    validation_subjects: int = 20,
    test_subjects: int = 40,
) -> dict[str, FaceTable]:
    """Training faces with the wanted counts, and balanced validation and test faces, of people who do not overlap.

    A ``nuisance_correlation`` holds for the training faces only; in the others nothing goes with the expression.

    Args:
        train_counts: faces per expression.
        per_class_validation: validation faces of each expression.
        per_class_test: test faces of each expression.
        config: everything else; its ``counts``, ``subjects`` and ``subject_offset`` are replaced.
        train_subjects, validation_subjects, test_subjects: people in each split.

    Returns:
        ``train``, ``validation`` and ``test``.
    """
    configs = split_configs(
        train_counts,
        per_class_validation,
        per_class_test,
        config=config,
        train_subjects=train_subjects,
        validation_subjects=validation_subjects,
        test_subjects=test_subjects,
    )
    return {name: render_faces(part) for name, part in configs.items()}


def split_configs(
    train_counts: dict[str, int] | int,
    per_class_validation: dict[str, int] | int,
    per_class_test: dict[str, int] | int,
    *,
    config: RenderConfig | None = None,
    train_subjects: int = 120,
    validation_subjects: int = 20,
    test_subjects: int = 40,
) -> dict[str, RenderConfig]:
    """The configs of the splits that :func:`render_splits` renders, for :func:`counterparts` and for provenance."""
    base = config or RenderConfig()
    sizes = {
        "train": (train_counts, train_subjects),
        "validation": (per_class_validation, validation_subjects),
        "test": (per_class_test, test_subjects),
    }
    configs, offset = {}, 0
    for name, (counts, subjects) in sizes.items():
        part = base if name == "train" else dataclasses.replace(base, nuisance_correlation=0.0)
        configs[name] = dataclasses.replace(part, counts=counts, subjects=subjects, subject_offset=offset)
        offset += -(-subjects // 16) * 16  # whole blocks of subjects, see identity.BLOCK
    return configs
