import base64
import re
from html.parser import HTMLParser

import pytest

from synthmtl.metrics.action_units import THRESHOLD
from synthmtl.report import contact_sheet, draw_gate_figures, draw_report_figures, summary, write_page
from synthmtl.report.page import best_of


class Reader(HTMLParser):
    """Collects text, tags and addresses, and checks that tags nest."""

    def __init__(self, page: str):
        super().__init__()
        self.open, self.tags, self.addresses, self.text = [], [], [], ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def rendered(report, tmp_path, figures=None) -> Reader:
    return Reader(write_page(report, tmp_path, figures).read_text(encoding="utf-8"))


def pair(report, a, b, metric, difference, ci95):
    report["comparisons"] = [
        one for one in report["comparisons"] if {one["a"], one["b"]} != {a, b} or one["metric"] != metric
    ]
    report["comparisons"].append(
        {"a": a, "b": b, "metric": metric, "difference": difference, "ci95": ci95, "paired_by": "seed"}
    )


def test_the_page_holds_the_numbers(report, tmp_path):
    page = rendered(report, tmp_path)
    for name, entry in report["methods"].items():
        assert name in page.text
        for metric in ("accuracy", "macro_f1", "balanced_accuracy", "minority_recall"):
            assert f"{entry[metric]:.3f}" in page.text
            assert "[{:.3f}, {:.3f}]".format(*entry["ci95"][metric]) in page.text
        for value in (*entry["per_class_recall"].values(), *entry["per_class_f1"].values()):
            assert f"{value:.3f}" in page.text
    for one in report["comparisons"]:
        assert f"{one['difference']:+.3f}".replace("-", "−") in page.text
    for part in ("synthmtl quickstart --out runs/quickstart", "torch 2.14.1", "not a checkout", "0.8125"):
        assert part in page.text
    assert report["notes"][0] in page.text


@pytest.mark.parametrize(
    ("drawn", "people", "said", "not_said"),
    [
        ("people", 12, "(test people, with all of their faces, and seeds resampled;", "too few"),
        ("faces", 8, "shows only 8 known people, too few to resample: single faces were drawn", "all of their faces"),
        ("faces", 1, "(single test faces and seeds resampled;", "1 known people"),
        ("faces", 0, "(single test faces and seeds resampled;", "too few"),
        (None, None, "(test people, or single faces where these are unknown or few, and seeds resampled;", "too few"),
    ],
)
def test_the_page_says_what_was_resampled(report, tmp_path, drawn, people, said, not_said):
    report["data"] |= {"resampled": drawn, "test_people": people} if drawn else {}
    text = " ".join(rendered(report, tmp_path).text.split())
    assert said in text and not_said not in text


def test_the_page_needs_nothing_beside_itself(report, faces, tmp_path):
    figures = draw_report_figures(report, tmp_path)
    figures["contact_sheet"] = contact_sheet(faces, None, None, tmp_path / "sheet.png", 1)
    figures["something_else"] = figures["class_counts"]
    page = rendered(report, tmp_path, figures)
    assert "script" not in page.tags and "link" not in page.tags
    assert len(page.addresses) == len(figures)
    embedded = [base64.b64decode(address.removeprefix("data:image/png;base64,")) for address in page.addresses]
    assert sorted(embedded) == sorted(path.read_bytes() for path in figures.values())
    assert "Further figures" in page.text


def test_the_page_shows_the_quality_card(report, card, faces, tmp_path):
    assert "Quality card" not in rendered(report, tmp_path).text
    report["generation"]["quality"] = card
    figures = {"closest_pairs": contact_sheet(faces, None, None, tmp_path / "pairs.png", 1)}
    page = rendered(report, tmp_path, figures)
    for part in (
        "Quality card",
        "label agreement",
        "0.3125",
        "[0.1, 0.9]",
        "right in 0.688",
        "the nearest other one: 0.438",
        card["notes"][0],
    ):
        assert part in page.text, part
    assert "Absent: lpips diversity: no weights are here" in page.text and len(page.addresses) == 1
    assert "quality ·" not in page.text  # not among the other numbers once more
    card["per_expression"]["fear"]["kid"] = {"absent": "one face"}
    assert "kid of fear: one face" in rendered(report, tmp_path).text


def rows_of(page: str, heading: str) -> list[list[tuple[str, str]]]:
    """The rows of the table that has ``heading``, as (tag, text) of their cells."""
    (table,) = [table for table in re.findall(r"<table.*?</table>", page, re.DOTALL) if heading in table]
    body = table.partition("<tbody>")[2]
    rows = [re.findall(r"<(th|td)[^>]*>(.*?)</", row.replace("<br>", " "), re.DOTALL) for row in body.split("<tr>")[1:]]
    return [[(tag, re.sub(r"<[^>]*>", "", text).strip()) for tag, text in cells] for cells in rows]


def test_what_stays_in_sight_on_a_phone_says_which_row_it_is(report, tmp_path):
    page = write_page(report, tmp_path).read_text(encoding="utf-8")
    heads = [cells[0] for cells in rows_of(page, 'class="difference"')]
    compared = dict.fromkeys((one["a"], one["b"]) for one in report["comparisons"])
    assert heads == [("th", f"{a} against {b}") for a, b in compared]
    shares = [cells[0] for cells in rows_of(page, "share of the oracle's gain")]
    assert shares == [("th", one["method"]) for one in report["share_of_gap"]]


def test_intervals_of_the_card_are_as_exact_as_its_values(report, card, tmp_path):
    card["overall"]["kid"] = {"value": 0.000312, "ci95": [-0.0001014, 0.0004823]}
    report["generation"] = {"quality": card, "shift": -0.25}
    page = rendered(report, tmp_path).text
    assert "0.000312[−0.0001014, 0.0004823]" in page
    card["overall"]["kid"] = {"value": -0.0000312, "ci95": [-0.0000401, 0]}
    page = rendered(report, tmp_path).text
    assert "−3.12e−05[−4.01e−05, 0]" in page
    assert "−0.25" in page and not re.search(r"(?<![\w-])-\d", page)


def test_the_cut_of_action_units_is_said_where_their_score_is(report, tmp_path):
    score = {"metric": "nme", "value": 0.1, "ci95": [0.1, 0.2], "per_seed": [0.1], "faces": 9}
    report["tasks"] = {"gated": {"landmarks": score}}
    assert "from an intensity of" not in rendered(report, tmp_path).text
    report["tasks"]["gated"]["action_units"] = score | {"metric": "mean_f1"}
    assert f"active from an intensity of {THRESHOLD}, in labels" in rendered(report, tmp_path).text


def test_the_page_shows_the_gates_where_there_are_any(report, tmp_path):
    page = rendered(report, tmp_path, draw_gate_figures(report, tmp_path))
    assert "What the gates let through" in page.text and len(page.addresses) == 2
    assert "Mean openness of the gates at each stage" in page.text
    assert "What the gates let through" not in rendered(report, tmp_path).text


def test_markup_in_the_report_is_text_on_the_page(report, tmp_path):
    evil = "<script>alert('x')</script>"
    report["notes"] = [evil]
    report["title"] = evil
    report["environment"]["command"] = f"synthmtl run --out '{evil}'"
    report["generation"] = {evil: evil}
    report["methods"][evil] = report["methods"]["gated"]
    report["comparisons"][0]["b"] = evil
    report["share_of_gap"][0]["method"] = evil
    page = rendered(report, tmp_path)
    assert "script" not in page.tags
    assert page.text.count(evil) >= 8


def test_smoke_is_said_loudly_and_only_there(report, tmp_path):
    assert "meaningless" not in rendered(report, tmp_path).text
    report["preset"] = "smoke"
    page = rendered(report, tmp_path)
    assert "Every number on this page is meaningless" in page.text
    assert "above" not in " ".join(summary(report))


def test_the_page_of_a_bare_report_is_written(report, tmp_path):
    for key in ("preset", "notes", "minority", "share_of_gap"):
        del report[key]
    plain = report["methods"]["plain"]
    del plain["confusion"], plain["minority_recall"], plain["ci95"]["minority_recall"]
    plain["per_class_recall"]["contempt"] = None
    report |= {"methods": {"plain": plain}, "comparisons": [], "generation": {}}
    report["balance"] = {"strategy": {"anger": 9}, "requested": {}, "kept": {}, "rejected": {}}
    page = rendered(report, tmp_path, draw_report_figures(report, tmp_path))
    assert "No paired comparison of plain was made" in page.text
    assert "None were made." in page.text


def test_a_report_against_the_contract_gets_no_page(report, tmp_path):
    del report["balance"]
    with pytest.raises(ValueError, match="balance: missing"):
        write_page(report, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_a_file_may_be_named(report, tmp_path):
    assert write_page(report, tmp_path / "other.html") == tmp_path / "other.html"
    assert write_page(report, tmp_path) == tmp_path / "report.html"


def test_the_summary_says_what_was_above_and_what_was_not(report):
    report["comparisons"] = []
    pair(report, "gated_balanced", "plain", "macro_f1", 0.1, [0.05, 0.15])
    pair(report, "gated_balanced", "oversampled", "macro_f1", 0.01, [-0.02, 0.04])
    pair(report, "oracle", "gated_balanced", "macro_f1", 0.08, [0.03, 0.12])
    text = " ".join(summary(report))
    assert "was above plain (+0.100 [+0.050, +0.150])" in text
    assert "could not be told from oversampled (+0.010 [−0.020, +0.040]), the interval containing zero" in text
    assert "was below oracle (−0.080 [−0.120, −0.030])" in text
    assert re.search(r"disgust|anger|contempt", text)


def test_the_summary_says_how_uneven_the_classes_are(report):
    counts = report["data"]["train_counts"]
    assert f"down to {min(counts.values()):,} of " in summary(report)[0]
    report["data"]["train_counts"] = dict.fromkeys(counts, 1200)
    assert f"{1200 * len(counts):,} faces of {len(counts)} expressions, 1,200 of each;" in summary(report)[0]


def test_the_summary_names_another_method_that_leads(report):
    report["methods"]["diluted"]["macro_f1"] = 0.9
    report["methods"]["diluted"]["ci95"]["macro_f1"] = [0.88, 0.92]
    assert "the highest mean was that of diluted with 0.900 [0.880, 0.920]" in " ".join(summary(report))


def test_the_summary_claims_all_others_only_when_all_were_compared(report):
    assert "above all 8 other methods (the oracle aside)" in " ".join(summary(report))
    pair(report, "gated_balanced", "diluted", "macro_f1", 0.01, [-0.02, 0.04])
    macro_f1 = next(sentence for sentence in summary(report) if sentence.startswith("In macro-F1"))
    assert "all 8" not in macro_f1 and "could not be told from diluted" in macro_f1


@pytest.mark.parametrize(("sign", "side", "over"), [(1, "above", "over"), (-1, "below", "under")])
def test_the_least_difference_to_all_others_is_not_that_to_the_oracle(report, sign, side, over):
    report["comparisons"] = []
    for name in report["methods"].keys() - {"gated_balanced"}:
        size = 0.02 if name == "oracle" else 0.3 if name != "diluted" else 0.05
        ends = sorted((sign * (size - 0.01), sign * (size + 0.01)))
        pair(report, "gated_balanced", name, "macro_f1", sign * size, ends)
    text = next(sentence for sentence in summary(report) if sentence.startswith("In macro-F1"))
    assert f"was {side} all 8 other methods (the oracle aside), by the least {over} diluted (" in text
    assert "oracle (" not in text
    report["comparisons"] = [one for one in report["comparisons"] if one["b"] != "plain"]
    text = next(sentence for sentence in summary(report) if sentence.startswith("In macro-F1"))
    assert "all 8" not in text and f"by the least {over} oracle (" in text


def test_few_seeds_and_an_unclear_oracle_are_admitted(report):
    report["methods"]["plain"] |= {"seeds": [0], "per_seed": report["methods"]["plain"]["per_seed"][:1]}
    report["share_of_gap"][0] |= {"share": None, "ci95": None, "gap": 0.01, "gap_ci95": [-0.01, 0.03]}
    text = " ".join(summary(report))
    assert "Fewer than 3 seeds carry no claim" in text
    assert "no share of it can be stated for gated_balanced" in text


def test_the_leader_is_shown_only_by_intervals_above_zero_and_never_the_oracle(report):
    assert best_of(report, "macro_f1") == {"gated_balanced": "shown"}
    assert best_of(report, "accuracy") == {"gated_balanced": "best"}  # no comparison was made on accuracy
    pair(report, "diluted", "gated_balanced", "macro_f1", -0.01, [-0.04, 0.02])
    assert best_of(report, "macro_f1") == {"gated_balanced": "best"}
    report["methods"]["plain"]["macro_f1"] = report["methods"]["gated_balanced"]["macro_f1"]
    assert best_of(report, "macro_f1") == {"plain": "best", "gated_balanced": "best"}
