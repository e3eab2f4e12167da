"""What ``synthmtl balance`` makes of classes that the data hardly show, and of the strategies that take numbers."""

import importlib.util
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from jsonargparse import ArgumentParser

from synthmtl.balance.strategy import STRATEGIES
from synthmtl.cli import build_parser, main
from synthmtl.commands.main_job import main_job_config
from synthmtl.data.load import load_splits
from synthmtl.data.writer import write_image_folder
from synthmtl.experiment import describe_data
from synthmtl.experiment.config import BalanceOptions
from synthmtl.models.inference import save_network

_spec = importlib.util.spec_from_file_location(
    "balancing_job", Path(__file__).parents[1] / "balance" / "balancing_job.py"
)
job = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(job)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Untrained networks that know neutral, happiness and fear, in the places of a run."""
    root = tmp_path_factory.mktemp("run")
    for part, network in {"generator": job.make_generator(), "judge": job.make_judge()}.items():
        save_network(network, root / part)
    return root


@pytest.fixture
def faces(tmp_path):
    """faces(train={...}, validation={...}, test={...}) → a folder of noise faces, so many of each class."""

    def write(**splits):
        for seed, (split, counts) in enumerate(splits.items()):
            write_image_folder(job.make_faces(counts, subjects=0, seed=seed), tmp_path / "faces", split)
        return tmp_path / "faces"

    return write


@pytest.fixture
def balanced(run, tmp_path, capsys):
    """balanced(data, ...) → the numbers that ``synthmtl balance`` tells, and its log."""

    def call(data, *more, rc=0):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        capsys.readouterr()
        options = ["--model", run, "--data", data, "--out", tmp_path / "out", "--on-leak", "warn", "--json", *more]
        assert main(["balance", *map(str, options)]) == rc
        said = capsys.readouterr()
        return json.loads(said.out) if rc == 0 else None, said.err

    return call


LACKING = {"neutral": 8, "happiness": 5}
ONE = LACKING | {"fear": 1}


def test_a_class_of_the_generator_that_no_face_shows_is_left_out_and_told_of(faces, balanced):
    data = faces(train=LACKING, validation=LACKING, test=LACKING)
    for strategy in set(STRATEGIES) - {"not minority"}:  # the rarest of two classes with faces
        summary, said = balanced(data, "--strategy", strategy)
        assert summary["requested"]["fear"] == 0 < summary["kept"]["happiness"] + summary["kept"]["neutral"]
        assert f"strategy {strategy} adds no face of fear, which no training face shows" in said
        assert 'name totals, as in --strategy "{fear: 8}"' in said


def test_the_judge_has_to_know_what_is_asked_for_and_nothing_else(faces, balanced, tmp_path):
    save_network(job.make_judge(("neutral", "fear")), tmp_path / "judge")
    counts = {"neutral": 8, "happiness": 6, "fear": 5}
    data = faces(train=counts, validation=counts, test=counts)
    options = ["--judge", tmp_path / "judge", "--fill", "best", "--strategy"]
    told, _ = balanced(data, *options, "{fear: 8}")
    assert told["kept"] == {"neutral": 0, "happiness": 0, "fear": 3}
    _, log = balanced(data, *options, "{happiness: 8}", rc=2)
    assert "the judge does not know happiness: train it on happiness" in log and not (tmp_path / "out").exists()


def test_totals_may_name_a_class_that_no_face_shows(faces, balanced, tmp_path):
    data = faces(train=LACKING, validation=LACKING, test=LACKING)
    summary, said = balanced(data, "--strategy", "{fear: 8}", "--originals")
    assert summary["requested"] == summary["kept"] == {"neutral": 0, "happiness": 0, "fear": 8}
    assert "adds no face of" not in said and "validation faces of fear: the judge's threshold is borrowed" in said
    rows = [json.loads(line) for line in (tmp_path / "out/train/metadata.jsonl").read_text().splitlines()]
    assert Counter(row["expression"] for row in rows) == LACKING | {"fear": 8}


@pytest.mark.parametrize("held_out", [{"validation": LACKING, "test": LACKING}, {"test": LACKING}, {}])
def test_a_class_with_one_face_is_filled_up_wherever_the_splits_come_from(faces, balanced, held_out, tmp_path):
    counts = {name: count if name == "fear" else 4 * count for name, count in ONE.items()}
    summary, said = balanced(faces(**{"train": counts} | held_out))
    before = json.loads((tmp_path / "out" / "balance.json").read_text())["counts_before"]
    assert before["fear"] == 1 and summary["kept"]["fear"] == before["neutral"] - 1
    assert "validation has no faces of fear" in said and "adds no face of" not in said


@pytest.mark.parametrize(
    ("counts", "message"),
    [({"neutral": 8, "fear": 0}, r"only ['neutral'] expression"), ({"neutral": 0, "fear": 1}, "only ['fear']")],
)
def test_two_classes_need_faces(faces, balanced, counts, message):
    counts = {name: count for name, count in counts.items() if count}
    _, said = balanced(faces(train=counts, validation=counts, test=counts), rc=2)
    assert said.count("\n") == 1 and message in said and "add images of at least one more class" in said


def test_a_ratio_of_two_classes(faces, balanced):
    data = faces(train={"neutral": 10, "fear": 4}, validation={"neutral": 5, "fear": 5}, test={"neutral": 2, "fear": 2})
    summary, _ = balanced(data, "--strategy", "0.8")
    assert summary["strategy"] == "ratio 0.8"
    assert summary["kept"] == {"neutral": 0, "happiness": 0, "fear": 4}
    assert balanced(data, "--strategy", "1")[0]["kept"] == balanced(data)[0]["kept"]
    _, said = balanced(data, "--strategy", "1.5", rc=2)
    assert "a ratio as strategy must lie in (0, 1], not 1.5" in said


def test_a_ratio_is_for_two_classes(faces, balanced):
    data = faces(train=ONE, validation=LACKING, test=LACKING)
    _, said = balanced(data, "--strategy", "0.8", rc=2)
    assert "a ratio (0.8) as strategy is for two classes only, and 3 have faces" in said


READ = {
    "auto": "auto",
    "not minority": "not minority",
    "0.8": 0.8,
    "1": 1.0,
    "{fear: 40, anger: 3}": {"fear": 40, "anger": 3},
}


@pytest.mark.parametrize("command", ["balance", "run"])
def test_a_name_stays_a_name_a_number_a_number_and_totals_totals(command, tmp_path):
    call = [command, "--data", "faces", "--out", "out", *(["--model", "run"] if command == "balance" else [])]
    parser, file = build_parser(call), tmp_path / "options.yaml"
    for text, meant in READ.items():
        if command == "balance":
            found = [parser.parse_args([*call, "--strategy", text])[command].strategy]
        else:
            file.write_text(f"balance:\n  strategy: {text}\n")
            calls = ([*call, "--balance.strategy", text], [*call, "--config", str(file)])
            found = [main_job_config(parser.parse_args(each)[command]).balance.strategy for each in calls]
        assert all((value, type(value)) == (meant, type(meant)) for value in found)


def test_options_written_and_read_again_are_the_same():
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(BalanceOptions, "it")
    for strategy in READ.values():
        options = parser.parse_object({"it": {"strategy": strategy}})
        assert parser.parse_string(parser.dump(options)).it.strategy == strategy


def test_no_set_is_put_among_the_faces_that_it_is_made_of(faces, run, capsys):
    data = faces(train=LACKING, validation=LACKING, test=LACKING)
    before = sorted(data.rglob("*"))
    for out in (data / "balanced", data / "train" / "balanced"):
        for more in ([], ["--resume"], ["--overwrite"]):
            assert main(["balance", "--model", str(run), "--data", str(data), "--out", str(out), *more]) == 2
            said = capsys.readouterr().err
            assert said.count("\n") == 1 and f"{out}: lies in {data}, where all is read as faces" in said
    assert sorted(data.rglob("*")) == before
    assert main(["inspect", str(data)]) == 0


def test_faces_that_the_run_held_out_are_not_edited_once_the_data_have_changed(run, tmp_path, capsys):
    """Else one face less would put most faces into other splits; ``--on-leak`` alone moves none."""
    mine, data, out = tmp_path / "run", tmp_path / "data" / "faces", tmp_path / "out"
    shutil.copytree(run, mine)
    table = job.make_faces({"neutral": 20, "happiness": 14, "fear": 8}, subjects=0)
    write_image_folder(table, data.parent, data.name)
    splits = load_splits(data, image_size=32, channels=1)
    told = {"path": str(data), "image_size": 32, "color": False, "split_seed": 0, "on_leak": "drop"}
    (mine / "options.json").write_text(json.dumps({"faces": told}))
    (mine / "data.json").write_text(json.dumps(describe_data(splits.tables())))
    call = ["balance", "--model", str(mine), "--data", str(data), "--out", str(out), "--strategy", "{fear: 8}"]
    for on_leak in ("drop", "warn"):
        assert main([*call, "--on-leak", on_leak, "--overwrite"]) == 0
        assert str(mine) not in capsys.readouterr().err
    shutil.rmtree(out)
    (data / "neutral" / "000003.png").unlink()
    lines = (data / "metadata.jsonl").read_text().splitlines()
    (data / "metadata.jsonl").write_text("\n".join(line for line in lines if "000003" not in line))
    for on_leak in ("drop", "warn"):
        assert main([*call, "--on-leak", on_leak]) == 2 and not out.exists()
        (said,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("synthmtl: "))
        assert f"{data}: not split as in {mine} (42 faces" in said and "neutral 20 and 19" in said
        assert said.endswith("restore the data, or name splits of your own by folders train, validation and test")
