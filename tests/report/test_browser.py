"""The pages in a real browser, headless Chromium: three widths, light and dark."""

import html
import json
import re
import shutil
import subprocess

import pytest

from synthmtl.report import contact_sheet, draw_gate_figures, draw_report_figures, write_page
from synthmtl.report.study_figures import draw_study_figures
from synthmtl.report.study_page import write_study_page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no browser: `apt-get install chromium` (Debian), or put one on PATH"
)

WIDTHS = (360, 768, 1280)  # a phone, a tablet, a desk: frames, since a headless window is never narrower than 500
SCHEMES = ("light", "dark")
OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--enable-logging=stderr",
    "--virtual-time-budget=20000", "--host-resolver-rules=MAP * ~NOTFOUND",
]  # fmt: skip
LOOK = """
const paper = (element) => {  // what is behind an element's text, as far as it is opaque
  const layers = [];
  for (let e = element; e; e = e.parentElement) layers.push(rgba(getComputedStyle(e).backgroundColor));
  return layers.reverse().reduce((under, over) => under.map((u, i) => u + over[3] * (over[i] - u)), [255, 255, 255]);
};
const rgba = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return n.length < 4 ? [...n, 1] : n; };
const light = (color) => color.slice(0, 3)
  .map((v) => v / 255).map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const contrast = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
addEventListener("load", () => {
  const seen = [...document.querySelectorAll("iframe")].map((frame) => {
    const page = frame.contentDocument, root = page.documentElement;
    const texts = [...page.body.querySelectorAll("*")].filter((e) =>
      [...e.childNodes].some((node) => node.nodeType === 3 && node.data.trim()));
    return {
      width: frame.contentWindow.innerWidth,
      dark: frame.contentWindow.matchMedia("(prefers-color-scheme: dark)").matches,
      overflow: root.scrollWidth - root.clientWidth,
      height: root.scrollHeight,
      pictures: page.images.length,
      broken: [...page.images].filter((image) => !image.naturalWidth).length,
      asked: frame.contentWindow.performance.getEntriesByType("resource").map((one) => one.name),
      texts: texts.length,
      faint: texts.map((e) => [contrast(rgba(getComputedStyle(e).color), paper(e)), e.textContent.trim().slice(0, 40)])
        .filter(([ratio]) => ratio < 4.5),
    };
  });
  const answer = document.createElement("pre");
  answer.id = "answer";
  answer.textContent = JSON.stringify(seen);
  document.body.replaceChildren(answer);
});
"""


def look_at(page, folder):
    """What the browser sees of a page at every width and scheme, and what it logged."""
    source = html.escape(page.read_text(encoding="utf-8"))
    frames = "".join(
        f'<iframe style="width:{width}px; height:800px; border:0; color-scheme:{scheme}" srcdoc="{source}"></iframe>'
        for width in WIDTHS
        for scheme in SCHEMES
    )
    around = folder / "around.html"
    around.write_text(f'<!DOCTYPE html><meta charset="utf-8">{frames}<script>{LOOK}</script>', encoding="utf-8")
    call = [BROWSER, *OPTIONS, f"--user-data-dir={folder / 'profile'}", "--dump-dom", around.as_uri()]
    done = subprocess.run(call, capture_output=True, text=True, timeout=120)
    answer = re.search(r'<pre id="answer">(.*?)</pre>', done.stdout, re.DOTALL)
    assert answer, done.stdout[-2000:] + done.stderr[-2000:]
    logged = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return json.loads(html.unescape(answer[1])), logged


@pytest.fixture
def main_page(report, card, faces, tmp_path):
    """The page of a main job with everything that it can hold, and words too long for a phone."""
    report["generation"]["quality"] = card
    counted = {"per_seed": [0.5], "faces": 9}
    report["tasks"] = {"gated": {"action_units": {"metric": "mean F1", "value": 0.5, "ci95": [0.4, 0.6], **counted}}}
    report["notes"].append("a" * 200)
    report["environment"]["command"] = "synthmtl run --data /" + "folder/" * 60
    figures = draw_report_figures(report, tmp_path) | draw_gate_figures(report, tmp_path)
    for name in ("contact_sheet", "closest_pairs"):
        figures[name] = contact_sheet(faces, None, None, tmp_path / f"{name}.png", 2)
    return write_page(report, tmp_path, figures), len(figures)


@pytest.fixture
def study_page(results, gate_maps, tmp_path):
    """The page of a study, one cell of which failed."""
    failed = {key: results["summary"][2][key] for key in ("method", "sharing", "aggregator", *results["conditions"][0])}
    failed |= {"name": "leaky-sum-rho0.5-seed3", "seed": 3, "error": "InputError: " + "long" * 50}
    results["failed"] = [failed]
    results["notes"].append("a" * 200)
    figures = draw_study_figures(results, tmp_path / "figures", [gate_maps])
    return write_study_page(results, tmp_path / "report.html", figures), len(figures)


@pytest.mark.parametrize("kind", ["main_page", "study_page"])
def test_page_in_a_browser(kind, request, tmp_path):
    page, pictures = request.getfixturevalue(kind)
    seen, logged = look_at(page, tmp_path)
    assert not logged
    assert [(one["width"], one["dark"]) for one in seen] == [(w, s == "dark") for w in WIDTHS for s in SCHEMES]
    for one in seen:
        assert one["overflow"] == 0, f"{one['width']} px: the page is {one['overflow']} px too wide"
        assert one["pictures"] == pictures and not one["broken"]
        assert not [address for address in one["asked"] if not address.startswith("data:")]
        assert one["texts"] > 50 and one["height"] > 1500
        assert not one["faint"], one["faint"][:5]


def test_a_spoiled_page_is_seen(tmp_path):
    page = tmp_path / "page.html"
    page.write_text(
        '<body style="color: #ccc"><p style="width: 2000px">wide</p><img src="data:image/png;base64,AAAA">'
        '<img src="http://example.invalid/a.png"><script>nothing.here()</script>'
    )
    seen, logged = look_at(page, tmp_path)
    assert all(one["overflow"] > 0 and one["broken"] == 2 and one["faint"] for one in seen if not one["dark"])
    assert any("example.invalid" in address for one in seen for address in one["asked"])
    assert any("nothing is not defined" in line for line in logged)
