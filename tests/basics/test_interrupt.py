"""Ctrl-C while trials run."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from study.basics.interrupt import PauseOnInterrupt
from study.orchestration.observer import QuietObserver


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


def test_a_second_sigterm_changes_nothing() -> None:
    """Slurm sends it to a job's script and to its steps; the script passes its own on."""
    recorder = Recorder()
    with PauseOnInterrupt(recorder, recorder) as pause:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert recorder.paused.wait(5)
    assert pause.requested


class Mute(Recorder):
    def message(self, text: str) -> None:
        raise BrokenPipeError


class Deaf(Recorder):
    def interrupt(self) -> None:
        raise ConnectionError


class Stuck(Recorder):
    def interrupt(self) -> None:
        threading.Event().wait()


@pytest.mark.parametrize("recorder", [Recorder(), Mute(), Deaf(), Stuck()])
def test_the_grace_period_ends_at_once_even_in_a_call_that_waits(recorder: Recorder) -> None:
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), PauseOnInterrupt(recorder, recorder, 0.2):
        signal.raise_signal(signal.SIGINT)
        time.sleep(10)
    assert time.monotonic() - began < 5


def test_a_terminal_that_is_gone_keeps_no_trial_from_its_checkpoint() -> None:
    mute = Mute()
    with PauseOnInterrupt(mute, mute):
        signal.raise_signal(signal.SIGTERM)
        assert mute.paused.wait(5)


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
