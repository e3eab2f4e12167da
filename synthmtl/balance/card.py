"""The data card of a balancing set."""

from collections import Counter

from synthmtl.balance.result import BalancingResult
from synthmtl.data.table import FaceTable

_COLUMNS = """\
| column | meaning |
|---|---|
| `file_name`, `expression` | the image below `train/`, and what it is meant to show |
| `synthetic` | `true` for a synthesized face, `false` for a copied original |
| `subject`, `session` | numbers of the person and the sitting in the source; missing where unknown |
| `source_file`, `source_row`, `source_expression` | the edited face, its row in the table, what it shows; none if \
the face is new |
| `generator` | first 16 hex digits of the SHA-256 of the generator's weights |
| `seed`, `attempt` | seed of what was drawn (missing for faces of an earlier set), and which attempt it was, from 0 |
| `agreement` | the judge's probability of `expression`; missing without the filter |
| `below_threshold` | `true` where the judge rejected every attempt and the best one fills the set up |
| `filtered` | `false` where faces were taken as they came, without a judge |
"""

_TARGET_COLUMNS = (
    "| `target_*` | what the generator was asked for: no label, since nobody has seen that the face shows it |\n"
)

_FILES = {
    "imagefolder": "`train/<expression>/<name>.png` with `train/metadata.jsonl`",
    "parquet": "`data/train-*.parquet`, pictures in the column `image`, `expression` as class label",
    "webdataset": "`data/train-*.tar` with `<name>.png`, `<name>.json` and `<name>.cls`, the number of the expression",
}


def data_card(result: BalancingResult, table: FaceTable, *, originals: bool, format: str, license_note: str) -> str:
    """``README.md`` of a balancing set, with the front matter that Hugging Face reads.

    Args:
        result: the set.
        table: the training faces that were balanced.
        originals: whether they are written, too.
        format: one of :data:`~synthmtl.balance.formats.FORMATS`.
        license_note: what follows "License:".
    """
    settings, sampling = result.identity["settings"], result.identity["settings"].get("sampling", {})
    network = "DiffusionFERSNet" if sampling else "FERSNet"
    arguments = {"spread": settings["spread"]} | {name: value for name, value in sampling.items() if value is not None}
    shown = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    told = "target" if "targets" in result.identity else "expression"
    edited = "source" if result.plan.edits else None
    seed_line = f"{network}.synthesize({edited}, {told}, generator=torch.Generator().manual_seed(seed), {shown})"
    strategy = result.plan.strategy
    return "\n".join(
        [
            "---",
            "license: other",
            "pretty_name: Synthesized faces that balance an expression data set",
            "task_categories: [image-classification]",
            "tags: [facial-expression-recognition, synthetic]",
            f"size_categories: [{_size(len(result.table) + originals * len(table))}]",
            "---",
            "",
            "# Balancing set",
            "",
            "Faces synthesized to give rare facial expressions more training samples"
            + (", beside the originals." if originals else "; the originals are not included."),
            f'Load it with `datasets.load_dataset("{format}", data_dir=...)`. Files: {_FILES[format]}. Classes, in the '
            f"order of their numbers: {', '.join(table.classes)}.",
            "",
            "## Intended use",
            "",
            "Training recognizers of facial expressions, and studies of class imbalance and of synthesized training "
            "data. It is for training only: never evaluate on it, and keep the people of the training faces out of the "
            "data that you evaluate on. Not for identifying, judging or monitoring people, nor as photographs of "
            "anybody.",
            "",
            "## Counts",
            "",
            f"Strategy: {strategy if isinstance(strategy, str) else 'a total for each class'}.",
            "",
            *_counts(result),
            "",
            *(f"- {sentence}." for sentence in result.shortfalls.values()),
            "",
            "## How it was made",
            "",
            _how(result, network),
            "",
            f"Rejected candidates: {_rejected(result)}.",
            "",
            f"A face can be made again from its {'source and ' if result.plan.edits else ''}seed, up to rounding: "
            f"`{seed_line}`. `balance.json` holds all settings and hashes; `contact_sheet.png` shows "
            f"{'sources and edits' if result.plan.edits else 'such faces'}. Every synthesized PNG says in its own text "
            "chunks that it is synthetic, by which generator, from which source file (if any) and with which seed.",
            "",
            "| made of | first 16 hex digits of the SHA-256 |",
            "|---|---|",
            f"| generator (weights) | `{result.identity['generator']}` |",
            f"| judge (weights) | {_code(result.identity['judge'])} |",
            f"| training faces (pixels and expressions) | `{result.identity['faces']}` |",
            f"| plan (targets, sources, seeds) | `{result.identity['plan']}` |",
            "",
            "## Columns",
            "",
            _COLUMNS + (_TARGET_COLUMNS if "targets" in result.identity else ""),
            "## Limits and fair use",
            "",
            "- The label is what the generator was asked for"
            + (" and a recognizer agreed with" if result.calibration else "; no recognizer looked at it")
            + "; no person has checked it. Agreement of a recognizer does not prove that a face looks natural: look at "
            "the contact sheet.",
            "- The generator learned from the same training faces; it "
            + ("adds no new people, and " if result.plan.edits else "")
            + "repeats the biases of the source in age, sex, skin color and culture, and of posed or caricatured "
            "expressions.",
            "- Synthesized faces share traces of their generator (blur, grain). Where only some classes hold such "
            "faces, a recognizer can learn the traces instead of the expressions.",
            "- An expression is not an emotion: do not infer what a person feels, and do not use the set to judge "
            "individuals.",
            "- Synthesized faces derive from photographs of real persons where the source holds such, and "
            + ("still show them" if result.plan.edits else "may come near one of them, though none was edited")
            + ". They are personal data as the source is: the consent, terms and withdrawals of the source apply, "
            "and nobody may be shown with an expression they did not make as if it were a photograph.",
            f"- License: {license_note}",
            "",
        ]
    )


def _counts(result: BalancingResult) -> list[str]:
    lines = [
        "| expression | before | requested | synthesized | of these below threshold | missing | after |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, before in result.plan.counts.items():
        kept = result.kept[name]
        lines.append(
            f"| {name} | {before} | {result.requested[name]} | {kept} | {result.below_threshold[name]} "
            f"| {result.missing[name]} | {before + kept} |"
        )
    return lines


def _how(result: BalancingResult, network: str) -> str:
    plan, calibration = result.plan, result.calibration
    uses = Counter(record["source_row"] for record in result.records)
    if plan.edits:
        text = (
            "Each synthesized face is a real training face of another expression, edited by a "
            f"{network} generator. Sources are spread evenly over subjects; no face is the source of more than "
            f"{max(uses.values(), default=0)} of the {len(result.records)} faces. "
        )
    else:
        text = (
            f"Each synthesized face is a new one, made of noise by a {network} generator that was told its expression. "
        )
    if targets := result.identity.get("targets"):
        kind = {"action_units": "action units", "valence_arousal": "valence and arousal"}[targets["kind"]]
        text += (
            f"The generator is told {kind}: mixtures of those of two training faces of the wanted expression (what the "
            "expression stands for, where no face carries any). "
        )
        if targets["supplied"]:
            text += f"Of {targets['supplied']} training faces a network supplied them. "
    if plan.match:
        text += f"They were chosen to keep the joint distribution of {', '.join(plan.match)} within each class. "
    if calibration is None:
        return text + "**No filter:** the first candidate of every face was taken, whatever it shows."
    borrowed = f" Too few faces, threshold borrowed: {', '.join(calibration.borrowed)}." if calibration.borrowed else ""
    return (
        f"{text}A recognizer that did not train with the generator judged each face: it is kept if the probability of "
        f"its expression reaches the {calibration.quantile:g} quantile of real validation faces of that "
        f"expression.{borrowed}{_mistaken(result)} Up to {result.identity['settings']['max_attempts']} attempts a "
        f"face. Faces that hardly differ from {'their source or from ' if plan.edits else ''}any training face, or "
        f"repeat {'another' if plan.edits else 'a'} person's, mirrored or not, were rejected and never used."
    )


def _mistaken(result: BalancingResult) -> str:
    """How many real faces of other expressions the judge would let pass, by what it filtered."""
    calibration = result.calibration
    if calibration is None:
        return ""
    shares = dict(zip(calibration.classes, calibration.mistaken.tolist(), strict=True))
    said = ", ".join(f"{name} {100 * shares[name]:.0f} %" for name, count in result.requested.items() if count)
    held = calibration.mistaken_at_most
    bound = "" if held is None else f" (thresholds were raised until no more than {100 * held:g} % would)"
    return (
        f" Of real validation faces of the other expressions so many would pass as well{bound}: {said}." if said else ""
    )


def _rejected(result: BalancingResult) -> str:
    reasons = {name: [f"{r} {n}" for r, n in row.items() if n] for name, row in result.rejected.items()}
    return "; ".join(f"{name}: {', '.join(row)}" for name, row in reasons.items() if row) or "none"


def _size(count: int) -> str:
    """Hugging Face's name for so many rows."""
    limits = {10**3: "n<1K", 10**4: "1K<n<10K", 10**5: "10K<n<100K", 10**6: "100K<n<1M"}
    return next((name for limit, name in limits.items() if count < limit), "1M<n<10M")


def _code(digits: str | None) -> str:
    return f"`{digits}`" if digits else "none"
