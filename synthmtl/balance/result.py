"""What balancing gives: the faces, where each comes from, and which class fell short and why."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from synthmtl.balance.calibration import JudgeCalibration
from synthmtl.balance.chunks import Chunk
from synthmtl.balance.filter import REASONS
from synthmtl.balance.plan import BalancePlan
from synthmtl.balance.targets import ClassTargets
from synthmtl.data.storage import new_faces
from synthmtl.data.table import FaceTable

FILLS = ("best", "leave")
"""What happens to a wanted face whose candidates were all rejected: its best-agreeing one is taken, or none is."""


@dataclass
class BalancingResult:
    """A balancing set and how it came about.

    Attributes:
        table: the synthesized faces. Each has the wanted expression, its source's subject, session and domain (unknown
            of a new face, which has no source), ``synthetic`` = True, the attribute ``agreement``, those that the plan
            matched, those of :meth:`ClassTargets.columns` and, as ``files``, its name in a written set. It has no
            further labels, since the edit changed them.
        records: of each face: ``source_file``, ``source_row``, ``source_expression`` (None of a new face), ``seed``,
            ``attempt`` (from 0), ``generator``, ``agreement`` (None without filter), ``below_threshold``, ``filtered``.
        plan: what was wanted.
        kept: faces in the table per class; ``requested`` minus ``kept`` is missing.
        below_threshold: of these, faces that the judge rejected and that fill the set up (``fill="best"``).
        rejected: {class: {reason: candidates}}, over all attempts.
        identity: hashes and settings that the set depends on.
        calibration: of the judge; None without filter.
    """

    table: FaceTable
    records: list[dict]
    plan: BalancePlan
    kept: dict[str, int]
    below_threshold: dict[str, int]
    rejected: dict[str, dict[str, int]]
    identity: dict
    calibration: JudgeCalibration | None

    @property
    def requested(self) -> dict[str, int]:
        """Faces to add per class."""
        return self.plan.requested

    @property
    def missing(self) -> dict[str, int]:
        """Faces that could not be made, per class."""
        return {name: count - self.kept[name] for name, count in self.requested.items()}

    @property
    def shortfalls(self) -> dict[str, str]:
        """A sentence for each class that is missing faces or was filled up with rejected ones: how many and why."""
        return {name: self._shortfall(name) for name in self.requested if self._shortfall(name)}

    def _shortfall(self, name: str) -> str:
        wanted, missing, below = self.requested[name], self.missing[name], self.below_threshold[name]
        if not missing and not below:
            return ""
        attempts = self.identity["settings"]["max_attempts"]
        unsourced = self.plan.unsourced.get(name, 0)
        text = f"{name}: of {wanted} wanted faces {missing} are missing and {below} lie below the judge's threshold"
        causes = []
        if unsourced:
            causes.append(f"{unsourced} had no source left that was used less than {self.plan.max_uses} times")
        if missing - unsourced + below:
            reasons = ", ".join(f"{reason} {count}" for reason, count in self.rejected[name].items() if count)
            causes.append(f"of {missing - unsourced + below} all {attempts} attempts were rejected ({reasons} in all)")
        return f"{text}: {'; '.join(causes)}"

    def summary(self) -> dict:
        """The ``balance`` of ``report.json``; ``rejected`` counts candidates, of which a wanted face has several.

        ``mistaken`` is that of :class:`JudgeCalibration`, empty without a filter.
        """
        judged = self.calibration.as_dict()["mistaken"] if self.calibration else {}
        return {
            "strategy": self.plan.strategy,
            "requested": self.requested,
            "kept": self.kept,
            "below_threshold": self.below_threshold,
            "missing": self.missing,
            "rejected": {name: sum(reasons.values()) for name, reasons in self.rejected.items()},
            "rejected_by_reason": self.rejected,
            "mistaken": {name: judged[name] for name in self.requested if name in judged},
        }


@dataclass(frozen=True)
class Origin:
    """What turns chunks into faces: the sources, the plan, and what provenance states of every face.

    Attributes:
        table: the training faces.
        plan: for this table.
        fill: one of :data:`FILLS`.
        identity: hashes and settings.
        chunk_size: wanted faces of a chunk.
        targets: what the generator was told.
    """

    table: FaceTable
    plan: BalancePlan
    fill: str
    identity: Mapping
    chunk_size: int
    targets: ClassTargets

    def taken(self, chunk: Chunk) -> Tensor:
        """(n,) bool, which of a chunk's wanted faces are in the set."""
        kept = chunk.reason < 0
        return kept | (chunk.reason == REASONS.index("disagreement")) if self.fill == "best" else kept

    def faces(self, number: int, chunk: Chunk, images: Tensor | None = None) -> tuple[FaceTable, list[dict]]:
        """The faces of a chunk that are in the set, and their records.

        Args:
            number: of the chunk.
            chunk: its content.
            images: of the faces in the set; None = those of the chunk.
        """
        table, plan, taken = self.table, self.plan, torch.where(self.taken(chunk))[0]
        wanted = taken + number * self.chunk_size
        target, source = plan.target[wanted], chunk.source[taken]
        filtered = self.identity["settings"].get("filter", True)
        named = (getattr(chunk, name)[taken].tolist() for name in ("seed", "attempt", "agreement", "reason"))
        records = [
            {
                "source_file": (table.files[row] or None) if row >= 0 else None,
                "source_row": row if row >= 0 else None,
                "source_expression": table.classes[table.expression[row]] if row >= 0 else None,
                "seed": seed,
                "attempt": attempt,
                "generator": self.identity["generator"],
                "agreement": round(agreement, 6) if filtered else None,
                "below_threshold": reason >= 0,
                "filtered": filtered,
            }
            for row, seed, attempt, agreement, reason in zip(source.tolist(), *named, strict=True)
        ]
        known = source >= 0
        names = [f"synthesized-{i:06d}" for i in wanted.tolist()]
        made = FaceTable(
            images=chunk.images[taken] if images is None else images,
            classes=plan.classes,
            expression=target,
            subject=torch.where(known, table.subject[source], -1),
            session=torch.where(known, table.session[source], -1),
            domain=torch.where(known, table.domain[source], 0),
            synthetic=torch.ones(len(taken), dtype=torch.bool),
            attributes={name: table.attributes[name][source] for name in plan.match}
            | {"agreement": chunk.agreement[taken].float()}
            | self.targets.columns(target, chunk.seed[taken].tolist()),
            words={name: table.words[name] for name in plan.match if name in table.words},
            files=[f"train/{plan.classes[t]}/{name}.png" for t, name in zip(target.tolist(), names, strict=True)],
        )
        return made, records


def gather(
    chunks: Sequence[Chunk],
    origin: Origin,
    calibration: JudgeCalibration | None,
    images_of: Callable[[int], Tensor],
) -> BalancingResult:
    """All chunks of a plan as one result; pixels are asked for chunk by chunk, and copied once.

    Args:
        chunks: in order; their images may have been given away.
        origin: of all chunks.
        calibration: of the judge.
        images_of: the images (n, C, H, W) of a chunk by its number.
    """
    plan, table = origin.plan, origin.table
    counts = [int(origin.taken(chunk).sum()) for chunk in chunks]
    images = torch.from_numpy(new_faces((sum(counts), *table.images.shape[1:])))
    parts, records, below, start = [], [], torch.zeros(len(plan.classes), dtype=torch.int64), 0
    rejected = torch.zeros(len(plan.classes), len(REASONS), dtype=torch.int64)
    for number, (chunk, count) in enumerate(zip(chunks, counts, strict=True)):
        taken = origin.taken(chunk)
        images[start : start + count] = images_of(number)[taken]
        part, made = origin.faces(number, chunk, images[start : start + count])
        parts.append(part)
        records += made
        below += torch.bincount(part.expression[chunk.reason[taken] >= 0], minlength=len(plan.classes))
        rejected += chunk.rejected
        start += count
    nothing = table.select([]).replace(attributes={"agreement": torch.empty(0)})
    labels = FaceTable.concatenate([part.replace(images=part.images[:, :, :0, :0]) for part in parts or [nothing]])
    return BalancingResult(
        table=labels.replace(images=images),
        records=records,
        plan=plan,
        kept=labels.counts(),
        below_threshold=dict(zip(plan.classes, below.tolist(), strict=True)),
        rejected={
            name: dict(zip(REASONS, row, strict=True))
            for name, row in zip(plan.classes, rejected.tolist(), strict=True)
            if plan.requested[name]
        },
        identity=dict(origin.identity),
        calibration=calibration,
    )
