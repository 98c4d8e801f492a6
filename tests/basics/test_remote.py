"""Folders behind URLs: S3 by a real server, the local disk by ``file://``, fsspec's memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import study.basics.remote
from study.basics.errors import StoreError
from study.basics.remote import RemoteFolder, is_remote, working_folder
from tests.helpers.object_store import BUCKET, s3_environment, s3_server


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_server() as port:
        saved = dict(os.environ)
        os.environ.update(s3_environment(port))
        yield f"s3://{BUCKET}"
        os.environ.clear()
        os.environ.update(saved)


@pytest.fixture(params=["s3", "file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(study.basics.remote, "_PAUSE_SECONDS", 0.0)
    if request.param == "s3":
        return f"{request.getfixturevalue('s3')}/{tmp_path.name}"
    return f"file://{tmp_path}/there" if request.param == "file" else f"memory://{tmp_path.name}"


def test_files_are_written_replaced_read_listed_and_removed(url: str) -> None:
    folder = RemoteFolder(url)
    assert folder.read("a/b.txt") is None and folder.names() == []
    folder.write("a/b.txt", b"one")
    folder.write("a/b.txt", b"two")
    folder.write("c", b"")
    assert folder.read("a/b.txt") == b"two" and folder.read("c") == b""
    assert folder.names() == ["a/b.txt", "c"] and folder.names("a") == ["a/b.txt"]
    assert folder.modified("a/b.txt") is not None and folder.modified("a") is None
    folder.remove("a")
    folder.remove("a")
    assert folder.names() == ["c"]


def test_a_file_that_cannot_be_read_to_its_end_replaces_none(url: str) -> None:
    folder = RemoteFolder(url)
    folder.write("a", b"the old one")
    with pytest.raises(StoreError, match=r"cannot be written: .*Input/output error"):
        folder.upload(Path("/proc/self/mem"), "a")
    assert folder.read("a") == b"the old one" and folder.names() == ["a"]


def test_folders_travel_both_ways(url: str, tmp_path: Path) -> None:
    folder, here = RemoteFolder(url), tmp_path / "here"
    (here / "deep").mkdir(parents=True)
    (here / "top.bin").write_bytes(bytes(range(256)) * 40_000)  # more than one part of an upload
    (here / "deep" / "low.txt").write_text("low")
    folder.upload(here, "copy")
    assert folder.names() == ["copy/deep/low.txt", "copy/top.bin"]
    assert folder.download("copy", tmp_path / "back")
    assert (tmp_path / "back/top.bin").read_bytes() == (here / "top.bin").read_bytes()
    assert (tmp_path / "back/deep/low.txt").read_text() == "low"
    assert folder.download("copy/top.bin", tmp_path / "one.bin")
    assert not folder.download("nothing", tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_a_bucket_that_is_not_there_is_named_at_once(s3: str) -> None:
    with pytest.raises(StoreError, match=r"s3://elsewhere/x cannot be written: .*NO_SUCH_BUCKET"):
        RemoteFolder("s3://elsewhere/x").write("a", b"")


def test_a_server_that_is_gone_is_waited_for_and_then_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(study.basics.remote, "_PAUSE_SECONDS", 0.01)
    with s3_server() as port:
        for name, value in s3_environment(port).items():
            monkeypatch.setenv(name, value)
        folder = RemoteFolder(f"s3://{BUCKET}/x")
        folder.write("a", b"1")
    with pytest.raises(StoreError, match=r"s3://bucket/x cannot be read"):
        folder.read("a")


def test_an_unknown_filesystem_is_named() -> None:
    with pytest.raises(StoreError, match="nonsense://x cannot be opened"):
        RemoteFolder("nonsense://x")


def test_what_is_a_place_for_results_and_what_a_database() -> None:
    assert is_remote("s3://bucket/x") and is_remote("gs://b") and is_remote("file:///x")
    assert not is_remote("/a/b") and not is_remote("results/x") and not is_remote("C:/x")
    for url in ("sqlite:///x.db", "postgresql://host/db", "postgresql+psycopg://host/db"):
        assert not is_remote(url)


def test_each_url_has_its_own_working_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDY_CACHE", "/scratch")
    one, other = (working_folder(f"s3://bucket/{name}", "demo") for name in ("a", "b"))
    assert one != other and one.parent == other.parent == Path("/scratch")
    assert one == working_folder("s3://bucket/a/", "demo")
