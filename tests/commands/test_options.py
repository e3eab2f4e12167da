import pytest
import yaml

from synthmtl.cli import build_parser, main
from synthmtl.commands.options import generator_of, path_of, preset_of
from synthmtl.experiment import preset


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Files to be named on the command line, in the current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "smoke.yaml").write_text("preset: smoke\n")
    (tmp_path / "diffusion.yaml").write_text(yaml.safe_dump({"preset": "full", "model": {"generator": "diffusion"}}))
    (tmp_path / "dotted.yaml").write_text("model.generator: diffusion\n")
    (tmp_path / "model.yaml").write_text("generator: diffusion\n")


# What is given last counts, whether in a file or not.
GIVEN = {
    "": ("quick", "gan"),
    "--preset smoke": ("smoke", "gan"),
    "--preset full --preset=smoke": ("smoke", "gan"),
    "--config smoke.yaml": ("smoke", "gan"),
    "--config smoke.yaml --preset full": ("full", "gan"),
    "--preset full --config=smoke.yaml": ("smoke", "gan"),
    "--config diffusion.yaml": ("full", "diffusion"),
    "--config diffusion.yaml --config smoke.yaml": ("smoke", "diffusion"),
    "--config diffusion.yaml --model.generator=gan": ("full", "gan"),
    "--config dotted.yaml": ("quick", "diffusion"),
    "--model model.yaml": ("quick", "diffusion"),
    "--model {generator:\\tdiffusion} --preset smoke": ("smoke", "diffusion"),
}


@pytest.mark.parametrize("given", GIVEN)
def test_defaults_are_those_of_what_is_parsed(files, given):
    argv = ["quickstart", "--out", "run", *(part.replace("\\t", " ") for part in given.split())]
    assert (preset_of(argv), generator_of(argv)) == GIVEN[given]
    options = build_parser(argv).parse_args(argv).quickstart
    name, generator = GIVEN[given]
    assert (options.preset, options.model.generator) == (name, generator)
    wanted = preset(name, rendered=True, generator=generator)
    assert (options.joint.steps, options.joint.ema_decay) == (wanted.joint.steps, wanted.joint.ema_decay)


def test_a_path_to_faces_is_found_wherever_it_is_given(tmp_path):
    config = tmp_path / "run.yaml"
    config.write_text("faces: {path: photos}\n")
    assert path_of([]) == ""
    assert path_of(["--faces.path", "others"]) == "others"
    assert path_of(["--config", str(config)]) == "photos"
    assert path_of(["--faces", "{path: others}"]) == "others"
    assert path_of(["--config", str(config), "--resume", "--faces.path", "null"]) == ""
    assert path_of(["--config", str(config), "--faces.path", ""]) == ""
    assert path_of(["--config", str(config), "--faces", "{path: null}"]) == ""


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"- a list\n", b"preset: [\n", b"preset:\n"])
def test_a_broken_file_names_no_preset(tmp_path, content):
    config = tmp_path / "run.yaml"
    config.write_bytes(content)
    assert preset_of(["--config", str(config), "--preset"]) == "quick"


def test_options_are_not_abbreviated(tmp_path, capsys):
    assert main(["quickstart", "--pres", "smoke", "--out", str(tmp_path / "run")]) == 2
    assert "--pres" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
