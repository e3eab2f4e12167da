"""The data card of a balancing set."""

from synthmtl.balance.synthesize import BalancingResult

_COLUMNS = """\
| column | meaning |
|---|---|
| `file_name`, `expression` | the image below `train/`, and what it is meant to show |
| `synthetic` | `true` for a synthesized face, `false` for a copied original |
| `subject`, `session` | numbers of the person and the sitting in the source; missing where unknown |
| `source_file`, `source_row`, `source_expression` | the face that was edited, its row in the table, and what it shows |
| `generator` | first 16 hex digits of the SHA-256 of the generator's weights |
| `seed`, `attempt` | seed of what was drawn, and which attempt it was, from 0 |
| `agreement` | the judge's probability of `expression` |
| `below_threshold` | `true` where the judge rejected every attempt and the best one fills the set up |
"""


def data_card(result: BalancingResult, *, originals: bool, license_note: str) -> str:
    """``README.md`` of a balancing set, with the front matter that Hugging Face reads."""
    plan, settings = result.plan, result.identity["settings"]
    calibration = result.calibration
    lines = [
        "| expression | before | requested | synthesized | of these below threshold | missing | after |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, before in plan.counts.items():
        kept = result.kept[name]
        lines.append(
            f"| {name} | {before} | {result.requested[name]} | {kept} | {result.below_threshold[name]} "
            f"| {result.missing[name]} | {before + kept} |"
        )
    reasons = [f"{name}: {', '.join(f'{r} {n}' for r, n in row.items() if n)}" for name, row in result.rejected.items()]
    rejected = "; ".join(line for line in reasons if not line.endswith(": ")) or "none"
    borrowed = f" Too few faces, threshold borrowed: {', '.join(calibration.borrowed)}." if calibration.borrowed else ""
    sampling = settings.get("sampling", {})
    network = "DiffusionFERSNet" if sampling else "FERSNet"
    arguments = {"spread": settings["spread"]} | {name: value for name, value in sampling.items() if value is not None}
    shown = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    seed_line = f"{network}.synthesize(source, expression, generator=torch.Generator().manual_seed(seed), {shown})"
    return "\n".join(
        [
            "---",
            "license: other",
            "pretty_name: Synthesized faces that balance an expression data set",
            "task_categories: [image-classification]",
            "tags: [facial-expression-recognition, synthetic]",
            "---",
            "",
            "# Balancing set",
            "",
            "Faces synthesized to give rare facial expressions more training samples"
            + (", beside the originals." if originals else "; the originals are not included."),
            'Load it with `datasets.load_dataset("imagefolder", data_dir=...)`. '
            "It is for training only: never evaluate on it.",
            "",
            "## Counts",
            "",
            f"Strategy: {plan.strategy if isinstance(plan.strategy, str) else 'a total for each class'}.",
            "",
            *lines,
            "",
            "## How it was made",
            "",
            "Each synthesized face is a real training face of another expression, edited by a "
            f"{network} generator (weights `{result.identity['generator']}`). Sources are spread evenly over "
            "subjects. A recognizer that "
            f"did not train with the generator (weights `{result.identity['judge']}`) judged each face: it is kept if "
            f"the probability of its expression reaches the {calibration.quantile:g} quantile of real validation "
            f"faces of that expression.{borrowed} Up to {settings['max_attempts']} attempts a face. Faces that hardly "
            "differ from their source or from a training face were rejected and never used.",
            "",
            f"Rejected candidates: {rejected}.",
            "",
            "A face can be made again from its source and seed, up to rounding: "
            f"`{seed_line}`. `balance.json` holds all settings and hashes; `contact_sheet.png` shows sources and "
            "edits.",
            "",
            "## Columns of `train/metadata.jsonl`",
            "",
            _COLUMNS,
            "## Limits and fair use",
            "",
            "- The label is what the generator was asked for and a recognizer agreed with; no person has checked it. "
            "Agreement of a recognizer does not prove that a face looks natural: look at the contact sheet.",
            "- The generator learned from the same training faces; it adds no new people, and repeats the biases of "
            "the source in age, sex, skin color and culture, and of posed or caricatured expressions.",
            "- An expression is not an emotion: do not infer what a person feels, and do not use the set to judge "
            "individuals.",
            "- Synthesized faces derive from photographs of real persons where the source holds such, and still show "
            "them. They are personal data as the source is: the consent, terms and withdrawals of the source apply, "
            "and nobody may be shown with an expression they did not make as if it were a photograph.",
            f"- License: {license_note}",
            "",
        ]
    )
