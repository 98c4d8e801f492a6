"""However a command ends, it is one line and an exit code."""

from __future__ import annotations

import errno
import io
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from study.cli import main
from tests.helpers.answers import command


def _deep(_: object) -> object:
    return _deep(_)


def _fails(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("study.cli.files.study_file", fail)


@pytest.fixture(autouse=True)
def _temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def test_what_nobody_thought_of_is_one_line_a_log_and_exit_code_70(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("study.cli.files.study_file", _deep)
    answer = command("plan")
    assert answer.code == 70
    assert len(answer.text.splitlines()) == 1 and "Traceback" not in answer.text
    assert answer.text.startswith("error: something unexpected happened (RecursionError: ")
    found = re.search(r"The traceback is in (\S+\.log)\. `study --debug", answer.text)
    assert found is not None
    log = Path(found[1])
    assert log.parent == tmp_path and "in _deep" in log.read_text()
    assert log.stat().st_mode & 0o077 == 0


def test_debug_prints_the_traceback_for_this_command_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    _fails(monkeypatch, KeyError("x\x1b[2J"))
    answer = command("--debug", "plan")
    assert answer.code == 70 and "Traceback" in answer.text and "\x1b" not in answer.text
    assert "Traceback" not in command("plan").text


@pytest.mark.parametrize(
    ("error", "code", "telling"),
    [
        (KeyboardInterrupt(), 130, ""),
        (MemoryError(), 2, "this machine's memory is not enough"),
        (OSError(errno.ENOSPC, "No space left on device", "/x"), 2, "Free some space"),
        (PermissionError(errno.EACCES, "Permission denied", "/x\n"), 2, r"denied (/x\n)"),
        (OSError("of a library's"), 70, "of a library's"),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "no"), 70, "UnicodeEncodeError"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 1, ""),
    ],
)
def test_each_ending_has_its_words_and_its_code(
    error: BaseException, code: int, telling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fails(monkeypatch, error)
    answer = command("plan")
    assert answer.code == code and telling in answer.text
    assert len(answer.text.splitlines()) <= 1 and "Traceback" not in answer.text


def test_a_wrong_option_is_a_usage_and_exit_code_2() -> None:
    answer = command("plan", "--nonsense")
    assert answer.code == 2 and "Try 'study plan --help'" in answer.text
    assert "No such option: --nonsense" in answer.text


def test_output_that_nobody_reads_or_no_disk_holds_ends_quietly_or_in_one_line() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with (
        os.fdopen(writer, "w") as closed,
        redirect_stdout(closed),
        pytest.raises(SystemExit) as end,
    ):
        _main("schema")
    assert end.value.code == 1
    errors = io.StringIO()
    with (
        open("/dev/full", "w") as full,
        redirect_stdout(full),
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(SystemExit) as end,
    ):
        patch.setattr("sys.stderr", errors)
        _main("schema")
    assert end.value.code == 2
    assert errors.getvalue().startswith("error: No space left on device")


def test_closed_streams_change_nothing_but_that_nobody_reads(tmp_path: Path) -> None:
    script = str(Path(sys.executable).parent / "study")
    for arguments, code in ((["schema"], 0), (["plan", str(tmp_path / "no.yaml")], 2)):
        ended = subprocess.run(
            ["bash", "-c", '"$@" <&- >&- 2>"$0"', tmp_path / "errors", script, *arguments],
            check=False,
        )
        errors = (tmp_path / "errors").read_text()
        assert ended.returncode == code and len(errors.splitlines()) == code // 2, errors


def _main(*arguments: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["study", *arguments])
        main()
