"""The README kept honest: its commands and Python run as printed, and what it points at is there.

Commands and blocks are read out of it, so that a new one is tested as well. They run one after the other, as a reader
would, in a folder with tiny ``FACES`` and a ``face.png``; what trains is told to train hardly at all.
"""

import contextlib
import io
import re
import runpy
import shlex
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from accelerate.commands.launch import launch_command_parser
from PIL import Image

from synthmtl.cli import main
from synthmtl.commands import COMMANDS
from synthmtl.data.writer import write_image_folder
from synthmtl.faces import RenderConfig, render_splits
from synthmtl.labels import EXPRESSIONS

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")

INDENTED = [line[4:] for line in TEXT.replace("\\\n", " ").splitlines() if line.startswith("    ")]
CALLS = [
    part
    for line in INDENTED
    for part in (re.sub(r"^\S*/", "", call.strip()) for call in line.split("&&"))
    if part.startswith(("synthmtl ", "accelerate launch "))
]
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)

SMALL = ["--preset", "smoke", "--precision", "no", "--workers", "1"]
SMALLER = {
    "quickstart": [*SMALL, "--methods", "[plain]", "--seeds", "[0]"],
    "run": [*SMALL, "--methods", "[gated_balanced]", "--seeds", "[0]"],
    "study": [*SMALL, "--grid.sharing", "[leaky]", "--grid.rho", "[0]", "--grid.seeds", "[0]"],
}
"""What a command that trains is given besides, for an answer in seconds. With a ``--config`` it only reads that."""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The folder that the README's reader works in."""
    folder = tmp_path_factory.mktemp("reader")
    counts = dict.fromkeys(EXPRESSIONS, 6) | {"disgust": 3}
    people = {"train_subjects": 12, "validation_subjects": 4, "test_subjects": 4}
    tables = render_splits(counts, 2, 2, config=RenderConfig(image_size=32), **people)
    for split, table in tables.items():
        write_image_folder(table, folder / "FACES", split)
    Image.fromarray(tables["test"].images[0, 0].numpy()).save(folder / "face.png")
    (folder / "recipes").symlink_to(ROOT / "recipes")
    return folder


@pytest.fixture(scope="module")
def ran(place):
    """{command line: (exit code, stdout, stderr)} of all of them, in the README's order."""
    return {call: run(call, place) for call in CALLS}


def run(call, place):
    words = shlex.split(call, comments=True)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(place), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = start(words[1:] if words[0] == "synthmtl" else without_launcher(words[2:]))
        except SystemExit as stop:
            code = stop.code
    return code, out.getvalue(), err.getvalue()


def without_launcher(words):
    """What the launched processes get, with a leading script for one that is no ``-m synthmtl``."""
    options = launch_command_parser().parse_args(words)
    if options.module:
        assert options.training_script == "synthmtl"
        return options.training_script_args
    return [options.training_script, *options.training_script_args]


def start(words):
    if words[0] in COMMANDS:
        return main([*words, *(["--print_config"] if "--config" in words else SMALLER.get(words[0], []))])
    before = sys.argv
    try:
        sys.argv = [*words, "--print_config"]
        runpy.run_path(words[0], run_name="__main__")
    finally:
        sys.argv = before


def test_commands_were_found():
    assert {call.split()[1] for call in CALLS if call.startswith("synthmtl")} >= {"quickstart", "run", "study", "score"}
    assert len(BLOCKS) >= 2 and any("recipes/" in call for call in CALLS)


@pytest.mark.parametrize("call", CALLS)
def test_command(ran, place, call):
    code, out, err = ran[call]
    assert code == 0, err
    words = shlex.split(call, comments=True)
    if "--config" in words:
        assert isinstance(yaml.safe_load(out), dict)
    elif "--out" in words:
        assert (place / words[words.index("--out") + 1]).exists()


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: re.search(r"synthmtl\.(\w+)", block)[1])
def test_python(ran, place, block):
    with contextlib.chdir(place), contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(block, "README.md", "exec"), {"__name__": "__main__"})
    assert out.getvalue().strip()


def test_the_report_that_is_promised(ran, place):
    for file in ("report.html", "report.json"):
        assert (place / "runs/quickstart" / file).stat().st_size


def test_options_that_are_named(ran):
    """Every option is one of a command, of a recipe, or of a launcher."""
    helps = {}
    for name in COMMANDS:
        with contextlib.redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit):
            main([name, "--help"])
        helps[name] = out.getvalue()
    known = set(re.findall(r"--[\w.-]+", "".join(helps.values()))) | {"--multi_gpu", "--num_processes", "--data.NAME"}
    recipes = [call for call in CALLS if "recipes/" in call]  # which test_command has their own parsers read
    known |= set(re.findall(r"(?<![\w-])--[a-z][\w.-]*[\w]", " ".join(recipes)))
    named = set(re.findall(r"(?<![\w-])--[a-z][\w.-]*[\w]", TEXT)) - {"--nested.key", "--data.NAME.path"}
    assert len(named) > 20 and not named - known


def test_links_and_pictures():
    targets = re.findall(r"\]\(([^)\s]+)\)", TEXT)
    assert targets
    for target in targets:
        assert target.startswith(("https://", "#")) or (ROOT / target).is_file(), target
    for picture in (target for target in targets if target.endswith(".png")):
        with Image.open(ROOT / picture) as image:
            image.verify()


def test_links_of_the_results():
    text = (ROOT / "recipes/RESULTS.md").read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    anchors = {"#" + re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert anchors & set(targets)
    for target in targets:
        assert target in anchors or (ROOT / "recipes" / target).is_file(), target


def test_files_that_are_named():
    for name in re.findall(r"\b(?:recipes|notebooks)/[\w./]*\w(?=[\s`)])", TEXT):
        assert (ROOT / name).exists(), name
    for recipe in re.findall(r"`(\w+\.py)`", TEXT):
        assert (ROOT / "recipes" / recipe).is_file(), recipe


def test_figures_come_from_the_results():
    """Scores (three decimals, an interval with them) stand in ``recipes/RESULTS.md``, too."""
    results = (ROOT / "recipes/RESULTS.md").read_text(encoding="utf-8")
    figures = re.findall(r"(?<![\d.])\d\.\d{3}(?: \[[^\]]+\])?|[+−]\d\.\d{3} \[[^\]]+\]", TEXT)
    assert len(figures) > 10
    assert not [figure for figure in figures if figure not in results]


def test_every_library_has_its_license_named():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    table = TEXT[TEXT.index("| license |") :]
    assert not [name for name in (re.split(r"[\[>=<]", one)[0] for one in wanted) if f"`{name}`" not in table]
