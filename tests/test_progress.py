import logging

import pytest
from tqdm import tqdm

from synthmtl import progress
from synthmtl.progress import ProgressLine, place_bars, shown


def test_without_a_terminal_progress_is_logged(caplog):
    caplog.set_level(logging.INFO, "synthmtl")
    line = ProgressLine(10, 4, "plain, seed 1", show=True, every=0.0)
    line.advance(0.5)
    line.close()
    assert "plain, seed 1: step 5 of 10, loss 0.5000, about" in caplog.text and "left" in caplog.text
    caplog.clear()
    ProgressLine(10, 4, "", show=False, every=0.0).advance(0.5)
    assert not caplog.text


def test_work_through_items_is_shown_once_it_takes_long(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "synthmtl")
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    seen = []
    for part in shown([[1, 2], [3, 4], [5]], "reading", unit="image", total=5, count=len):
        seen += part
        now[0] += 31
    assert seen == [1, 2, 3, 4, 5]
    assert [record.getMessage() for record in caplog.records] == [
        "reading: image 2 of 5, about 00:46 left", "reading: image 4 of 5, about 00:15 left",
        "reading: image 5 of 5, about 00:00 left",
    ]  # fmt: skip
    caplog.clear()
    assert list(shown(iter("abc"), "reading", unit="letter", total=3)) == ["a", "b", "c"] and not caplog.records
    with pytest.raises(TypeError, match="give total"):
        next(shown(iter("abc"), "reading", unit="letter"))


def test_of_a_process_group_the_first_one_shows_it(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert not ProgressLine(2, 0, "").show
    monkeypatch.setenv("RANK", "0")
    assert ProgressLine(2, 0, "").show


def test_a_bar_waits_until_work_is_long(monkeypatch, capsys):
    made = []
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "tqdm", lambda **options: made.append(options) or tqdm(disable=True))
    assert list(shown(range(3), "rendering", unit="face")) == [0, 1, 2]
    ProgressLine(3, 0, "plain").close()
    assert [options["delay"] for options in made] == [progress.PATIENCE, 0.0]
    assert made[0]["unit"] == " faces" and made[0]["total"] == 3


def test_on_a_terminal_bars_of_several_processes_keep_to_their_lines(monkeypatch, capsys):
    made = []
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(progress, "_place", None)
    monkeypatch.setattr(progress, "tqdm", lambda **options: made.append(tqdm(disable=False, **options)) or made[-1])
    for place in (0, 3):
        place_bars(place)
        line = ProgressLine(10, 4, "plain", show=True)
        line.advance(0.5)
        assert (made[-1].pos, made[-1].n, made[-1].total) == (-place, 5, 10)
        line.close()
