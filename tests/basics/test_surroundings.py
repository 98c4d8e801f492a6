"""What of the environment reaches paths, Ray and workers."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from ray._private.utils import validate_socket_filepath
from requests.utils import should_bypass_proxies

from study.basics import surroundings
from study.basics.database_url import sqlite_path
from study.basics.errors import ConfigError, ResourceError
from study.cli.output import Console
from study.config.files import check_paths
from study.config.load import parse_config
from study.config.sources import find_source

STUDY = """
name: tiny
model: {{path: {model}}}
data: {{train: {train}, text: text}}
dataset_sizes: [64]
arms: [full]
search: {{trials: 1, replicates: 1}}
confirm: {{seeds: 0}}
storage: {{results: {results}, database: {database}}}
"""


def _study(
    model: str = "org/m", train: str = "org/d", results: str = "r", database: str = "null"
) -> str:
    return STUDY.format(model=model, train=train, results=results, database=database)


def test_variables_and_home_are_filled_in_wherever_a_path_is_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SCRATCH", "/scratch/me")
    monkeypatch.setenv("MODEL", "Qwen/Qwen3-0.6B")
    monkeypatch.setenv("HOME", "/home/me")
    written = _study("$MODEL", "'${SCRATCH}/x.jsonl'", "$SCRATCH/r", "sqlite:////dbs$SCRATCH/s.db")
    config = parse_config(written, tmp_path)
    assert config.model.path == "Qwen/Qwen3-0.6B"
    assert config.data.train == "/scratch/me/x.jsonl"
    assert config.storage.results == "/scratch/me/r"
    assert sqlite_path(config.database_url) == Path("/dbs/scratch/me/s.db")
    assert parse_config(_study("~/m", "a$.csv"), tmp_path).model.path == "/home/me/m"
    bucket = parse_config(_study(results="s3://bucket$SCRATCH"), tmp_path)
    assert bucket.results_url == "s3://bucket/scratch/me"


@pytest.mark.parametrize(
    ("setting", "value", "named"),
    [
        ("model", "$NO_SUCH/m", "`NO_SUCH` is not set"),
        ("train", "[a.jsonl, '${NO_SUCH}.jsonl']", "data.train.1"),
        ("results", "$EMPTY/r", "`EMPTY` is empty"),
        ("results", "~nobody-here/r", "home folder of `~nobody-here`"),
        ("database", "sqlite:///$NO_SUCH/s.db", "storage.database"),
    ],
)
def test_a_path_with_a_name_that_stands_for_nothing_is_one_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, setting: str, value: str, named: str
) -> None:
    monkeypatch.setenv("EMPTY", "")
    with pytest.raises(ConfigError) as caught:
        parse_config(_study(**{setting: value}), tmp_path)
    assert named in str(caught.value)
    assert len(caught.value.faults) == 1


def test_the_dollar_in_a_database_password_stays() -> None:
    url = "postgresql://me:pa$word@host/db"
    assert parse_config(_study(database=f"'{url}'")).storage.database == url


@pytest.mark.parametrize("name", ["what?a", "run [v2]", "a#b", "50%", "a b+c&d"])
def test_a_folder_may_be_called_anything(tmp_path: Path, name: str) -> None:
    base = tmp_path / name
    base.mkdir()
    for file in ("a1.jsonl", "a2.jsonl"):
        (base / file).write_text('{"text": "x"}\n')
    written = _study(train="'a*.jsonl'", database="sqlite:///s.db")
    config = parse_config(written, base)
    assert not [fault for fault in check_paths(config) if fault.path.startswith("data")]
    found = find_source("data.train", config.data.train, ()).files
    assert found == (base / "a1.jsonl", base / "a2.jsonl")
    assert sqlite_path(config.database_url) == base / "s.db"
    own = parse_config(_study(), base)
    assert sqlite_path(own.database_url) == base / "r" / "study.db"


@pytest.mark.parametrize("value", ["", " ", "local"])
def test_an_address_that_names_no_cluster_is_none(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", value)
    assert surroundings.ray_address() is None
    surroundings.set_environment()
    assert "RAY_ADDRESS" not in os.environ


def test_no_proxy_stands_before_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")  # to be put back afterwards
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:9")
    monkeypatch.setenv("NO_PROXY", "intra.net")
    assert not should_bypass_proxies("http://127.0.0.1:8265", no_proxy=None)
    surroundings.pass_proxy()
    given = surroundings.for_cluster("10.0.0.7:6379")
    for url in ("http://127.0.0.1:8265", "http://localhost:1", "http://a.intra.net"):
        assert should_bypass_proxies(url, no_proxy=None), url
    assert should_bypass_proxies("http://10.0.0.7:8265", no_proxy=given["no_proxy"])
    assert not should_bypass_proxies("http://huggingface.co", no_proxy=None)


def test_workers_forget_the_launcher_around_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_LOCAL_RANK", "0")
    monkeypatch.setenv("PMI_RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "1")
    surroundings.drop_launchers()
    assert not [name for name in os.environ if name.startswith(("OMPI_", "PMI_"))]
    assert os.environ["LOCAL_RANK"] == "1"


def test_a_long_or_missing_tmpdir_leaves_ray_a_short_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    long = tmp_path / ("a" * 80)
    long.mkdir()
    for unfit in (long, "/nowhere"):
        monkeypatch.setenv("TMPDIR", str(unfit))
        folder = surroundings.ray_folder()
        assert not folder.startswith(str(unfit))
        session = "session_2026-11-30_21-52-15_123456_4194304"
        validate_socket_filepath(f"{folder}/{session}/sockets/plasma_store")
    monkeypatch.setenv("TMPDIR", str(long))
    surroundings.set_environment()
    validate_socket_filepath(f"{os.environ['TMPDIR']}/pymp-12345678/listener-12345678")
    monkeypatch.setenv("TMPDIR", "/var/tmp")
    assert surroundings.ray_folder().startswith("/var/tmp/ray")
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    with pytest.raises(ResourceError, match=r"RAY_TMPDIR is .*aaa.* bytes\. Set RAY_TMPDIR"):
        surroundings.ray_folder()


def test_without_a_home_that_can_be_written_ray_gets_a_token_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("HOME", str(tmp_path))
    surroundings.own_token()
    assert not os.environ["RAY_AUTH_TOKEN"]
    monkeypatch.setenv("HOME", "/proc")
    surroundings.own_token()
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64


def test_scripts_in_the_working_folder_are_not_imported(tmp_path: Path) -> None:
    for name in ("torch", "yaml", "typer", "datasets", "ray"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the script of somebody')\n")
    script = str(Path(sys.executable).parent / "study")
    for command, path in ([[sys.executable, "-m", "study"], ""], [[script], ":/nowhere"]):
        told = subprocess.run(
            [*command, "plan", "--help"],
            env=os.environ | {"PYTHONPATH": path},
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert told.returncode == 0, told.stderr
    assert str(tmp_path) not in surroundings.import_path()


def test_what_is_started_in_a_safe_path_imports_nothing_from_the_working_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    (tmp_path / "random.py").write_text("raise SystemExit('the script of somebody')\n")
    monkeypatch.setenv("PYTHONPATH", ":/nowhere")  # the empty entry is the working folder
    # As Python's fork server, of which Ray's dashboard has one, and its resource tracker start.
    command = [sys.executable, "-c", "import random"]
    with surroundings.safe_path():
        assert subprocess.run(command, cwd=tmp_path, check=False).returncode == 0
    assert os.environ["PYTHONPATH"] == ":/nowhere"
    assert "PYTHONSAFEPATH" not in os.environ  # scripts of the user's own may import each other
    assert surroundings.for_cluster()["PYTHONSAFEPATH"] == "1"


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, "as ascii here"),
        ({"PYTHONUTF8": "1"}, "started in is gone"),
        ({"PYTHONOPTIMIZE": "2"}, "Unset PYTHONOPTIMIZE"),
    ],
)
def test_a_process_that_no_study_can_run_in_is_told_so(
    tmp_path: Path, environment: dict[str, str], told: str
) -> None:
    folder = tmp_path / "bücher"
    folder.mkdir()
    gone = "os.rmdir(os.getcwd())" if "gone" in told else "pass"
    code = (
        f"import os; {gone}; import sys; from study.cli import main; "
        f"sys.argv = ['study', 'status', {str(tmp_path)!a}]; main()"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 2 and told in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_a_uid_without_a_name_or_home_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "")  # to be put back afterwards
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 987654)  # of which no account is known
    with pytest.raises(RuntimeError):
        Path.home()
    surroundings.check_process()
    assert Path.home() == Path("/")


def test_a_terminal_of_no_width_is_one_of_unknown_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "0")
    assert Console().width == 0
    surroundings.check_process()
    assert Console().width >= 80


def test_a_machine_without_an_ipv4_loopback_is_told_before_ray_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    surroundings.check_loopback()

    def bind(_: socket.socket, __: object) -> None:
        raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")

    monkeypatch.setattr(socket.socket, "bind", bind)
    with pytest.raises(ResourceError, match=r"127\.0\.0\.1"):
        surroundings.check_loopback()


def test_a_folder_with_a_dollar_sign_in_its_name_is_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "$d").mkdir()
    path = f"{tmp_path}/$d/task.jsonl"
    assert surroundings.expanded(path) == path and surroundings.unknown_in(path) is None
    assert surroundings.unknown_in(f"{tmp_path}/$nowhere/task.jsonl") is not None
