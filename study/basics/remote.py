"""A folder that is reached by URL: ``s3://``, ``gs://``, or any filesystem that fsspec knows.

S3 and Google's storage go through Arrow's own clients, which take credentials and the endpoint from
the environment (``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, ...), never from the URL.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

from study.basics.errors import StoreError

_DATABASES = ("sqlite", "postgresql", "mysql", "redis")
_TRIES, _PAUSE_SECONDS = 4, 1.0
_CONNECT_SECONDS, _REQUEST_SECONDS = 10, 60
_CHUNK = 2**22

Result = TypeVar("Result")


def is_remote(place: str | os.PathLike[str]) -> bool:
    """Whether a place is the URL of a folder: not a local path, and not a database's."""
    scheme, found, _ = str(place).partition("://")
    return bool(found) and scheme.partition("+")[0] not in _DATABASES


def working_folder(url: str, name: str) -> Path:
    """Where a study keeps files on this machine whose results folder is a URL: below
    ``STUDY_CACHE``, or the user's cache folder. The same on every machine of a cluster."""
    import hashlib

    root = os.environ.get("STUDY_CACHE") or "~/.cache/finetune-study"
    mark = hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:10]
    return Path(root).expanduser() / f"{name}-{mark}"


class RemoteFolder:
    """Files below one URL; names are relative, with ``/``. A file is there whole or not at all, and
    one that cannot be replaced stays as it was.

    Every call tries again for a few seconds before it gives up.

    Raises:
        StoreError: by every method: the place cannot be reached, written or read; names it.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        # Of parts: the next try replaces what an outage has left.
        self._mark = uuid.uuid4().hex
        with self._explained("opened"):
            self._files, self._root = _open(self.url)

    def write(self, name: str, content: bytes) -> None:
        """Replace a file."""
        self._tried("written", lambda: self._write(name, content))

    def read(self, name: str) -> bytes | None:
        """A file's content; None if there is none."""
        return self._tried("read", lambda: self._read(name))

    def upload(self, local: Path, name: str, *, marked: bool = False) -> None:
        """Copy a local file, or a folder with all that is in it.

        Args:
            marked: another file, which is written last, says that all are there: a part of one may
                be left by an error, and large ones cost no second copy inside the storage.
        """
        if local.is_dir():
            for path in sorted(p for p in local.rglob("*") if p.is_file()):
                below = path.relative_to(local).as_posix()
                self.upload(path, f"{name}/{below}", marked=marked)
            return
        self._tried("written", lambda: self._upload(local, name, marked))

    def download(self, name: str, local: Path) -> bool:
        """Copy a file, or a folder with all that is in it, to a local path that is replaced file
        by file; False if there is neither."""
        names = [name] if self.modified(name) is not None else self.names(name)
        for found in names:
            path = local if found == name else local / found[len(name) + 1 :]
            self._tried("read", partial(self._download, found, path))
        return bool(names)

    def names(self, folder: str = "") -> list[str]:
        """All files below a folder, ascending; none if there is no such folder."""
        return self._tried("listed", lambda: self._names(folder))

    def modified(self, name: str) -> float | None:
        """When a file was written, seconds since the epoch by the storage's clock; None if there
        is no such file."""
        return self._tried("read", lambda: self._modified(name))

    def remove(self, name: str) -> None:
        """A file, or a folder with all that is in it, if it is there."""
        self._tried("removed", lambda: self._remove(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}".rstrip("/")

    def _write(self, name: str, content: bytes) -> None:
        with self._replacing(name) as stream:
            stream.write(content)

    def _read(self, name: str) -> bytes | None:
        if self._modified(name) is None:
            return None
        with self._files.open_input_stream(self._path(name), compression=None) as stream:
            return bytes(stream.read())

    def _upload(self, local: Path, name: str, marked: bool) -> None:
        begin = self._begun if marked else self._replacing
        with local.open("rb") as source, begin(name) as stream:
            shutil.copyfileobj(source, stream, _CHUNK)

    @contextmanager
    def _replacing(self, name: str) -> Iterator[Any]:
        """A stream to a file that appears when it is whole.

        It gets another name first. Object storages do with a stream that an error closes what they
        do with any other: what has been written becomes the file, and Arrow knows no way out.
        """
        begun = f"{name}.{self._mark}.part"
        place = self._begun(begun)
        try:
            with place as stream:
                yield stream
            self._files.move(self._path(begun), self._path(name))
        except BaseException:
            with suppress(Exception):  # what went wrong is told, not what followed
                self._remove(begun)
            raise

    def _begun(self, name: str) -> Any:
        self._make_parent(name)
        return self._files.open_output_stream(self._path(name), compression=None)

    def _download(self, name: str, local: Path) -> None:
        local.parent.mkdir(parents=True, exist_ok=True)
        begun = local.with_name(f".{local.name}.{uuid.uuid4().hex}.part")
        try:
            with (
                self._files.open_input_stream(self._path(name), compression=None) as stream,
                begun.open("wb") as target,
            ):
                shutil.copyfileobj(stream, target, _CHUNK)
            os.replace(begun, local)
        finally:
            begun.unlink(missing_ok=True)

    def _names(self, folder: str) -> list[str]:
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(self._path(folder), recursive=True, allow_not_found=True)
        start = len(self._root) + 1
        found = self._files.get_file_info(selector)
        return sorted(info.path[start:] for info in found if info.type == FileType.File)

    def _modified(self, name: str) -> float | None:
        from pyarrow.fs import FileType

        info = self._files.get_file_info(self._path(name))
        if info.type != FileType.File:
            return None
        return info.mtime_ns / 1e9 if info.mtime_ns is not None else 0.0

    def _remove(self, name: str) -> None:
        from pyarrow.fs import FileType

        kind = self._files.get_file_info(self._path(name)).type
        if kind == FileType.File:
            self._files.delete_file(self._path(name))
        elif kind == FileType.Directory:
            self._files.delete_dir(self._path(name))

    def _make_parent(self, name: str) -> None:
        """Object storage has no folders; others need theirs."""
        if self._files.type_name not in ("s3", "gcs"):
            self._files.create_dir(self._path(name).rpartition("/")[0], recursive=True)

    def _tried(self, what: str, call: Callable[[], Result]) -> Result:
        with self._explained(what):
            for left in reversed(range(_TRIES)):
                try:
                    return call()
                except OSError as error:
                    if not left or _is_final(error):
                        raise
                    time.sleep(_PAUSE_SECONDS * 2 ** (_TRIES - 1 - left))
        raise AssertionError  # the last try returns or raises

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each filesystem raises its own
            if isinstance(error, StoreError):
                raise
            raise StoreError(
                f"{self.url} cannot be {what}: {_reason(error)} Check storage.results, and the "
                "credentials in the environment of this machine."
            ) from error


def _open(url: str) -> tuple[Any, str]:
    from pyarrow import fs

    scheme, _, rest = url.partition("://")
    if scheme == "s3":
        retry = fs.AwsStandardS3RetryStrategy(max_attempts=2)
        # Arrow reads the endpoint of a server that is not Amazon's from nowhere.
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        known = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        bucket = rest.partition("/")[0]
        files = fs.S3FileSystem(
            endpoint_override=endpoint,
            # Amazon's servers tell where a bucket is; others need not know.
            region=known or (None if endpoint else _region(bucket)),
            retry_strategy=retry,
            connect_timeout=_CONNECT_SECONDS,
            request_timeout=_REQUEST_SECONDS,
        )
        return files, rest
    if scheme in ("gs", "gcs"):
        import datetime

        limit = datetime.timedelta(seconds=_REQUEST_SECONDS)
        return fs.GcsFileSystem(retry_time_limit=limit), rest
    if scheme == "file":
        return fs.LocalFileSystem(), rest
    import fsspec

    class Handler(fs.FSSpecHandler):
        """Arrow's, without its extras that not every filesystem has, and believing no list of
        files twice: other machines write too."""

        def move(self, src: str, dest: str) -> None:
            self.fs.mv(src, dest)

        def get_file_info(self, paths: list[str]) -> Any:
            self.fs.invalidate_cache()
            return super().get_file_info(paths)

        def get_file_info_selector(self, selector: Any) -> Any:
            self.fs.invalidate_cache()
            return super().get_file_info_selector(selector)

    # `url_to_fs` also reads hosts and ports out of the URL, where a filesystem has them.
    found, path = fsspec.core.url_to_fs(url)
    return fs.PyFileSystem(Handler(found)), path


@lru_cache
def _region(bucket: str) -> str:
    """Where Amazon keeps a bucket; a request, and every trial opens its folders anew."""
    from pyarrow import fs

    return str(fs.resolve_s3_region(bucket))


def _is_final(error: OSError) -> bool:
    """Whether it would be no use to try again."""
    text = str(error)
    known = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY", "SIGNATURE_DOES_NOT_MATCH")
    return isinstance(error, FileNotFoundError | PermissionError) or any(k in text for k in known)


def _reason(error: BaseException) -> str:
    """The first line of what a filesystem says, which may be long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:300].rstrip(".") + "."
