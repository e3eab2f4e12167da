import logging

from tqdm import tqdm

from synthmtl.training import progress
from synthmtl.training.progress import ProgressLine, place_bars


def test_without_a_terminal_progress_is_logged(caplog):
    caplog.set_level(logging.INFO, "synthmtl")
    line = ProgressLine(10, 4, "plain, seed 1", show=True, every=0.0)
    line.advance(0.5)
    line.close()
    assert "plain, seed 1: step 5 of 10, loss 0.5000, about" in caplog.text and "left" in caplog.text
    caplog.clear()
    ProgressLine(10, 4, "", show=False, every=0.0).advance(0.5)
    assert not caplog.text


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
