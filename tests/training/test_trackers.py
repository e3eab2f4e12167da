"""Trackers by name: known, installed, offline, and shown pictures."""

import importlib.util
import socket
from types import SimpleNamespace

import numpy as np
import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from synthmtl.cli import main
from synthmtl.errors import InputError
from synthmtl.training import History, build_accelerator, trackers
from synthmtl.training.trackers import TRACKERS, check_tracker, stay_offline, track_images, tracker_options


def test_every_tracker_that_accelerate_offers_has_its_name():
    assert set(TRACKERS) == {str(name) for name in LOGGER_TYPE_TO_CLASS} >= {"tensorboard", "wandb", "mlflow"}
    assert check_tracker("none") == []


@pytest.mark.parametrize("name", TRACKERS)
def test_a_tracker_is_taken_or_said_to_be_missing(name, tmp_path, monkeypatch):
    monkeypatch.setattr(trackers.os, "environ", dict(trackers.os.environ))
    if importlib.util.find_spec(name):
        assert [str(one) for one in build_accelerator(log_dir=tmp_path, tracker=name).log_with] == [name]
    else:
        with pytest.raises(InputError, match=f"{name} is not installed: pip install {name.replace('_', '-')}"):
            build_accelerator(log_dir=tmp_path, tracker=name)


def test_an_unknown_one_ends_in_one_line(tmp_path, capsys):
    call = ["quickstart", "--preset", "smoke", "--tracker", "nosuch", "--out", str(tmp_path / "out")]
    assert main(call) == 2
    said = capsys.readouterr().err
    assert said == f"synthmtl: unknown tracker 'nosuch': use one of none, {', '.join(TRACKERS)}\n"
    assert not (tmp_path / "out").exists()


def test_none_asks_a_server_unless_it_is_told_to(tmp_path, monkeypatch):
    told = {}
    for name in TRACKERS:
        stay_offline(name, tmp_path, told)
    assert told["WANDB_MODE"] == told["SWANLAB_MODE"] == "offline" and told["CLEARML_OFFLINE_MODE"] == "1"
    assert told["MLFLOW_TRACKING_URI"].startswith("file://") and told["WANDB_DIR"] == str(tmp_path)
    mine = {"WANDB_MODE": "online"}
    stay_offline("wandb", tmp_path, mine)
    assert mine["WANDB_MODE"] == "online"
    monkeypatch.delenv("COMET_START_ONLINE", raising=False)
    assert tracker_options("comet_ml") == {"comet_ml": {"online": False}} and tracker_options("wandb") == {}
    monkeypatch.setenv("COMET_START_ONLINE", "1")
    assert tracker_options("comet_ml") == {}


def test_curves_and_pictures_reach_tensorboard(tmp_path, monkeypatch):
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was asked"))
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).save(tmp_path / "sheet.png")
    accelerator = build_accelerator(log_dir=tmp_path / "tracking")
    history = History(None, accelerator, "plain")
    history.add(3, losses={"loss": 0.5}, learning_rate=0.25)
    history.close()
    track_images(accelerator, {"contact_sheet": tmp_path / "sheet.png"})
    found = {}
    for file in (tmp_path / "tracking").rglob("events.out.tfevents.*"):
        events = EventAccumulator(str(file)).Reload()
        for tag in events.Tags()["scalars"]:
            found[tag] = [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["images"]:
            found[tag] = [(event.width, event.height) for event in events.Images(tag)]
    assert found["loss"] == [(3, 0.5)] and found["learning_rate"] == [(3, 0.25)]
    assert found["contact_sheet"] == [(8, 6)]


def test_without_a_tracker_nothing_is_shown(tmp_path):
    accelerator = build_accelerator(log_dir=tmp_path / "tracking", tracker="none")
    track_images(accelerator, {"missing": tmp_path / "missing.png"})
    assert not accelerator.log_with and not list(tmp_path.iterdir())


def test_a_tracker_that_takes_no_pictures_is_left_alone(tmp_path, monkeypatch):
    ended = []
    plain = SimpleNamespace(name="plain", finish=lambda: ended.append(True))
    accelerator = SimpleNamespace(log_with=["plain"], trackers=[])
    monkeypatch.setattr(trackers, "start_trackers", lambda to, name: setattr(to, "trackers", [plain]))
    track_images(accelerator, {"missing": tmp_path / "missing.png"})
    assert ended == [True]
