"""The report as one HTML file that needs neither network nor JavaScript, with a summary written from the numbers."""

import base64
from collections.abc import Mapping
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from synthmtl.files import write_text
from synthmtl.report.figures import METRIC_TITLES, written
from synthmtl.report.schema import validate_report

METHOD_NOTES = {
    "plain": "recognition alone, on the faces as they are",
    "plain_matched": "the same, as large as the gated net",
    "class_weighted": "loss weighted by inverse class frequency",
    "oversampled": "rare faces repeated",
    "logit_adjusted": "logits shifted by the log class prior",
    "hard_sharing": "both branches share every layer",
    "gated": "both branches share features through learned gates",
    "gated_balanced": "gated, and synthesized faces fed back",
    "diluted": "control: the same batch shares, filled without synthesis",
    "oracle": "upper bound: true renders in place of synthesized faces",
}
"""One line on each method of the main job."""

_FIGURES = {
    # prefix of a figure's name: (section of the page, caption)
    "closest_pairs": ("quality", "synthesized faces (left) that are nearest to a training face"),
    "contact_sheet": ("contact_sheet", "sources and what the synthesis branch made of them"),
    "mapped": ("contact_sheet", "photographs and what expression mapping made of them, the pairs that taught the edit"),
    "class_counts": ("balance", "training faces of each class before and after balancing"),
    "methods": ("methods", "mean over seeds (dot), 95 % interval (line), single seeds (small dots)"),
    "per_class": ("per_class", "recall of each expression"),
    "confusion": ("confusion", "confusion on the test split, all seeds together"),
    "curves": ("training", "training"),
    "gates_expressions": ("gates", "openness on faces of an expression less the mean over expressions"),
    "gates": ("gates", "mean openness of the gates at each stage, with its range over seeds"),
}
_FOCUS = ("gated_balanced", "gated")  # the method whose worth the run is to show


def write_page(report: dict, out: Path, figures: Mapping[str, Path] | None = None) -> Path:
    """Write the report as one HTML file with its figures inside.

    Args:
        report: as ``report.json`` holds it.
        out: the file to write, or an existing folder that gets ``report.html``.
        figures: PNG files by name. The name's beginning (``contact_sheet``, ``mapped``, ``class_counts``, ``methods``,
            ``per_class``, ``confusion``, ``curves``, ``gates``) decides the section; its rest joins the caption.

    Returns:
        The file written.

    Raises:
        ValueError: if the report does not keep its contract.
    """
    validate_report(report)
    placed: dict[str, list[dict]] = {}
    for name, file in (figures or {}).items():
        prefix = next((p for p in _FIGURES if name.startswith(p)), None)
        section, caption = ("other", "") if prefix is None else _FIGURES[prefix]
        rest = name.removeprefix(prefix or "").strip("_")
        title = ": ".join(part for part in (METRIC_TITLES.get(rest, rest), caption) if part) or name
        title = title[0].upper() + title[1:] if rest not in report["methods"] else title
        placed.setdefault(section, []).append(
            {"title": title, "data": embedded(file), "sheet": section in ("contact_sheet", "quality")}
        )
    pairs: dict[tuple[str, str], dict[str, dict]] = {}
    for one in report["comparisons"]:
        pairs.setdefault((one["a"], one["b"]), {})[one["metric"]] = one
    shown = [m for m in METRIC_TITLES if any(m in entry["ci95"] for entry in report["methods"].values())]
    page = template("page.html.jinja").render(
        report=report,
        title=report.get("title", "synthmtl: recognition with balanced faces"),
        smoke=report.get("preset") == "smoke",
        summary=summary(report),
        figures=placed,
        pairs=pairs,
        compared=list(dict.fromkeys(one["metric"] for one in report["comparisons"])),
        metrics={name: METRIC_TITLES[name] for name in shown},
        metric_titles=METRIC_TITLES,
        marks={name: best_of(report, name) for name in shown},
        method_notes=METHOD_NOTES,
        generation=_flat({key: value for key, value in report["generation"].items() if key != "quality"}),
        quality=quality_table(report["generation"].get("quality")),
        further_tasks={task for scores in report.get("tasks", {}).values() for task in scores},
    )
    out = Path(out)
    out = out / "report.html" if out.is_dir() else out
    write_text(out, page)
    return out


def quality_table(card: Mapping | None) -> dict | None:
    """A quality card as a table: ``columns`` {number: title}, ``rows`` {expression: {number: entry}}, and what is said
    beside it: ``absent`` {reason: numbers}, ``warning`` of FID, ``reference`` of the labels, copies ``among_real``,
    ``people`` told apart among real faces.

    Numbers that no row has are left out of the columns; a reason that holds for one expression names it.
    """
    if card is None:
        return None
    rows = {"all": card["overall"]} | card["per_expression"]
    columns = [name for name in card["overall"] if any("value" in row[name] for row in rows.values())]
    absent: dict[str, list[str]] = {}
    for expression, row in rows.items():
        reasons = {entry.get("absent") for entry in row.values()}
        if len(reasons) == 1 and None not in reasons:
            absent.setdefault(reasons.pop(), []).append(f"everything of {expression}")
            continue
        for name, entry in row.items():
            if "absent" in entry and (expression == "all" or "value" in rows["all"][name]):
                said = _words(name) if expression == "all" else f"{_words(name)} of {expression}"
                absent.setdefault(entry["absent"], []).append(said)
    titles = {"fid": "FID", "kid": "KID", "lpips_diversity": "LPIPS diversity"}
    beside = {
        "warning": ("fid", "warning"),
        "reference": ("label_agreement", "reference"),
        "among_real": ("copies", "real"),
        "people": ("subject_kept", "real"),
    }
    return {
        "columns": {name: titles.get(name, _words(name)) for name in columns},
        "rows": rows,
        "absent": absent,
        **{key: card["overall"].get(name, {}).get(part) for key, (name, part) in beside.items()},
    }


def _words(name: str) -> str:
    return name.replace("_", " ")


def template(name: str) -> Template:
    """A page's template, with the filters that write numbers, intervals and verdicts."""
    environment = Environment(
        loader=PackageLoader("synthmtl.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"score": _score, "interval": _interval, "signed": _signed, "plain": _plain}
    environment.filters |= {"written": written, "verdict": verdict}
    return environment.get_template(name)


def embedded(file: Path | str) -> str:
    """A file's content, to stand in a page."""
    return base64.b64encode(Path(file).read_bytes()).decode("ascii")


def best_of(report: dict, metric: str) -> dict[str, str]:
    """The leading method of a metric, the oracle aside: ``{name: "best"}`` or ``{name: "shown"}``.

    "shown" means that the run compared it with every other method (the oracle aside) on this metric and every
    interval lies above zero; "best" only that its mean is the highest. Equal means are all named.
    """
    means = {
        name: entry[metric]
        for name, entry in report["methods"].items()
        if name != "oracle" and entry.get(metric) is not None
    }
    leaders = [name for name, value in means.items() if value == max(means.values())]
    marks = dict.fromkeys(leaders, "best")
    if len(leaders) == 1:
        compared = _against(report, leaders[0], metric)
        if len(means) > 1 and all(other in compared and compared[other][1][0] > 0 for other in means.keys() - leaders):
            marks[leaders[0]] = "shown"
    return marks


def summary(report: dict) -> list[str]:
    """What the numbers say, in sentences: what beat what with its interval, and what did not."""
    methods, data = report["methods"], report["data"]
    counts = data["train_counts"]
    rare, common = min(counts, key=counts.get), max(counts, key=counts.get)
    seeds = sorted({len(entry["seeds"]) for entry in methods.values()})
    test_faces = sum(data["test_counts"].values())
    said_seeds = " to ".join(map(str, sorted({seeds[0], seeds[-1]})))
    spread = f"from {counts[common]:,} of {common} down to {counts[rare]:,} of {rare}"
    if counts[common] == counts[rare]:
        spread = f"{counts[common]:,} of each"
    sentences = [
        f"{len(methods)} {'method was' if len(methods) == 1 else 'methods were'} tested on {test_faces:,} faces. The "
        f"training split holds {sum(counts.values()):,} faces of {len(counts)} expressions, {spread}; each method was "
        f"trained with {said_seeds} {'seed' if seeds == [1] else 'seeds'}."
    ]
    if report.get("preset") == "smoke":
        return [*sentences, "This was a smoke run: it proves that everything works, and its numbers mean nothing."]
    if min(seeds) < 3:
        sentences.append("Fewer than 3 seeds carry no claim: read every difference below as a hint.")
    best = next(iter(best_of(report, "macro_f1")), next(iter(methods)))
    focus = next((name for name in _FOCUS if name in methods), best)
    sentences.append(
        f"{focus} reached a macro-F1 of {_score(methods[focus]['macro_f1'])} "
        f"{_interval(methods[focus]['ci95']['macro_f1'])}"
        + (
            ", the highest mean" + (" (the oracle aside)." if "oracle" in methods else ".")
            if best == focus
            else f"; the highest mean was that of {best} with {_score(methods[best]['macro_f1'])} "
            f"{_interval(methods[best]['ci95']['macro_f1'])}."
        )
    )
    for metric, title in METRIC_TITLES.items():
        if metric in ("macro_f1", "minority_recall"):
            sentences += _verdict(
                _against(report, focus, metric), focus, title, len(methods.keys() - {focus, "oracle"})
            )
    if not any(_against(report, focus, metric) for metric in METRIC_TITLES):
        sentences.append(f"No paired comparison of {focus} was made, so nothing is claimed about it.")
    for entry in report.get("share_of_gap", []):
        if entry["method"] != focus:  # the others stand in the table
            continue
        title = METRIC_TITLES.get(entry["metric"], entry["metric"])
        if entry["share"] is None:
            sentences.append(
                f"True renders themselves gave no clear gain in {_lower(title)} over plain ({_signed(entry['gap'])} "
                f"{_interval(entry['gap_ci95'], signed=True)}), so no share of it can be stated for {entry['method']}."
            )
        else:
            share, low, high = (written(100 * value, ".0f") for value in (entry["share"], *entry["ci95"]))
            sentences.append(
                f"{entry['method']} recovered {share} % [{low}, {high}] of what true renders would have "
                f"brought in {_lower(title)} ({_signed(entry['gap'])})."
            )
    return sentences


def _verdict(compared: dict, focus: str, title: str, every: int) -> list[str]:
    """One sentence, or none: what ``focus`` is above, what it cannot be told from, and what it is below.

    ``every`` is how many methods beside ``focus`` and the oracle there are.
    """
    groups: dict[str, list[str]] = {"above": [], "open": [], "below": []}
    for other in sorted(compared, key=lambda name: abs(compared[name][0])):
        groups[verdict(compared[other][1])].append(other)
    said = []
    for group, wording, over in (("above", "was above", "over"), ("open", "", ""), ("below", "was below", "under")):
        others = groups[group]
        if not others:
            continue
        texts = {name: f"{_signed(compared[name][0])} {_interval(compared[name][1], signed=True)}" for name in others}
        named = _joined([f"{name} ({text})" for name, text in texts.items()])
        rivals = [name for name in others if name != "oracle"]
        if group == "open":
            plural = "s" * (len(others) > 1)
            said.append(f"could not be told from {named}, the interval{plural} containing zero")
        elif len(others) <= 3:
            said.append(f"{wording} {named}")
        else:
            whom, least = _joined(others), others[0]
            if len(rivals) == every:
                whom, least = f"all {every} other methods (the oracle aside)", rivals[0]
            said.append(f"{wording} {whom}, by the least {over} {least} ({texts[least]})")
    return [f"In {_lower(title)}, {focus} {'; it '.join(said)}."] if said else []


def verdict(ci95: list[float]) -> str:
    """What the interval of a difference says: "above" or "below" zero, or "open" when it contains zero."""
    return "above" if ci95[0] > 0 else "below" if ci95[1] < 0 else "open"


def _against(report: dict, name: str, metric: str) -> dict[str, tuple[float, list[float]]]:
    """Difference and interval of ``name`` minus each method it was compared with on ``metric``."""
    found = {}
    for entry in report["comparisons"]:
        if entry["metric"] == metric and entry["a"] == name:
            found[entry["b"]] = (entry["difference"], entry["ci95"])
        elif entry["metric"] == metric and entry["b"] == name:
            found[entry["a"]] = (-entry["difference"], [-entry["ci95"][1], -entry["ci95"][0]])
    return found


def _flat(tree: Mapping, path: str = "") -> dict[str, object]:
    """Nested mappings as ``{"outer · inner": value}``."""
    rows: dict[str, object] = {}
    for key, value in tree.items():
        rows |= _flat(value, f"{path}{key} · ") if isinstance(value, Mapping) else {f"{path}{key}": value}
    return rows


def _score(value: float | None) -> str:
    return "–" if value is None else written(value, ".3f")


def _signed(value: float) -> str:
    return written(value, "+.3f")


def _interval(pair: list[float] | None, *, signed: bool = False, plain: bool = False) -> str:
    """An interval, written as the value beside it."""
    write = _signed if signed else _plain if plain else _score
    return "" if pair is None else f"[{', '.join(map(write, pair))}]"


def _plain(value: object) -> str:
    """A value of any kind, for the tables of generation and environment."""
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value)
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, int | float):
        return written(value, "," if isinstance(value, int) else ".4g")
    return str(value)


def _joined(items: list[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _lower(title: str) -> str:
    return title[0].lower() + title[1:]
