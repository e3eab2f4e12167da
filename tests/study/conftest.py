"""What several tests of studies need."""

from contextlib import contextmanager

import pytest

from synthmtl.interference import ConflictRecorder


@pytest.fixture
def interrupted(monkeypatch):
    """A context in which training is interrupted while step 2 is looked at."""
    whole = ConflictRecorder.__call__

    def stop(recorder, step, losses):
        if step == 2:
            raise KeyboardInterrupt
        whole(recorder, step, losses)

    @contextmanager
    def interruption():
        with monkeypatch.context() as patch:
            patch.setattr(ConflictRecorder, "__call__", stop)
            yield

    return interruption
