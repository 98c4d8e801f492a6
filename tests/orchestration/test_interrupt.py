"""Ctrl-C while trials run."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from study.api import QuietObserver
from study.orchestration.interrupt import PauseOnInterrupt


class Recorder(QuietObserver):
    """Pool and observer in one; notes what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.paused = threading.Event()

    def interrupt(self) -> None:
        self.paused.set()

    def message(self, text: str) -> None:
        self.told.append(text)


def test_the_first_signal_asks_for_a_pause_and_interrupts_nothing() -> None:
    recorder = Recorder()
    with PauseOnInterrupt(recorder, recorder) as pause:
        signal.raise_signal(signal.SIGTERM)
        assert recorder.paused.wait(5)
    assert pause.requested and "Ctrl-C once more" in recorder.told[0]


def test_the_second_signal_leaves_at_once() -> None:
    recorder = Recorder()
    with pytest.raises(KeyboardInterrupt), PauseOnInterrupt(recorder, recorder):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def test_the_end_of_the_grace_period_is_a_second_signal() -> None:
    recorder = Recorder()
    with pytest.raises(KeyboardInterrupt), PauseOnInterrupt(recorder, recorder, 0.05):
        signal.raise_signal(signal.SIGINT)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            time.sleep(0.01)


def test_without_a_signal_nothing_happens_and_handlers_are_put_back() -> None:
    recorder, before = Recorder(), signal.getsignal(signal.SIGINT)
    with PauseOnInterrupt(recorder, recorder) as pause:
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before
    assert not pause.requested and not recorder.paused.is_set()


def test_in_another_thread_signals_are_left_alone() -> None:
    recorder, before = Recorder(), signal.getsignal(signal.SIGINT)
    seen = []

    def enter() -> None:
        with PauseOnInterrupt(recorder, recorder):
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]
