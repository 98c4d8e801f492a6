"""What of its surroundings the program takes: variables in paths, and what reaches Ray and workers.

Ray on this machine inherits this process's environment as `set_environment` leaves it; the nodes
of a cluster that is joined have their own, to which `for_cluster` adds. A worker then drops what
another launcher left (`drop_launchers`), wherever it is from. No Ray in here.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from study.basics.errors import ResourceError, UserError
from study.basics.shipped import package_folder

# Read when Ray is imported or started, so they are set before either. A user's own value stays.
_SETTINGS = {
    # Workers' reports are polled at this interval; the default of 2 s is longer than the gap
    # between two evaluations of a small trial.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.25",
    # Tune's CSV, JSON and TensorBoard files would repeat what the store holds.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Ctrl-C is the runner's: Tune's handler ends the run as if it were finished.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Every result is an evaluation, and results carry no metric of Tune's.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TOKENIZERS_PARALLELISM": "false",
    # Files are named and written in UTF-8 wherever a worker runs; a locale may say otherwise.
    "PYTHONUTF8": "1",
    # A thread that still speaks to Ray when the study ends must not start another Ray.
    "RAY_ENABLE_AUTO_CONNECT": "0",
}
# No Python looks in the folder that it is started in, where a `random.py` may lie.
_SAFE_PATH = {"PYTHONSAFEPATH": "1"}
_ADDRESS = "RAY_ADDRESS"
_LAUNCHERS = ("OMPI_", "PMI_", "PMIX_")
_PROXIES = ("http_proxy", "https_proxy", "all_proxy")
_PAST_PROXY = ("no_proxy", "NO_PROXY")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_LONGEST_SOCKET = 103 if sys.platform == "darwin" else 107
"""Bytes that a Unix socket's path may have."""
_SOCKET = "/session_2026-12-31_23-59-59_999999_4194304/sockets/plasma_store"
_LISTENER = "/pymp-12345678/listener-12345678"
_TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})", re.ASCII)


def check_process() -> None:
    """Mend or refuse what libraries would fail by, in their own ways, before any is imported: no
    working folder, no UTF-8 in the names of files, a uid of which nobody knows the home.

    Raises:
        UserError: no study can run in this process.
    """
    if os.path.expanduser("~") == "~":
        os.environ["HOME"] = "/"  # as Docker has it
    if os.environ.get("COLUMNS") == "0":  # nobody knows how wide; Rich would print nothing
        del os.environ["COLUMNS"]
    if sys.flags.optimize > 1:
        raise UserError(
            "Python runs without docstrings here (-OO or PYTHONOPTIMIZE=2), and transformers reads "
            "its own. Unset PYTHONOPTIMIZE."
        )
    try:
        os.getcwd()
    except OSError:
        raise UserError(
            "The folder that this was started in is gone, or closed to you. Go to another one."
        ) from None
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8":
        raise UserError(
            f"Python reads and writes the names of files as {encoding} here, by the locale or by "
            "PYTHONUTF8. Set PYTHONUTF8=1."
        )


def expanded(path: str) -> str:
    """A path as a shell reads it: ``~`` and environment variables are filled in. A folder that has
    a dollar sign in its name is taken as it is written."""
    path = os.path.expanduser(path)
    return path if _has_dollars(path) else os.path.expandvars(path)


def unknown_in(path: str) -> str | None:
    """What in a path stands for nothing here; None: it can be `expanded`."""
    if os.path.expanduser(path).startswith("~"):
        return f"no home folder of `{path.partition('/')[0]}` is known here."
    if _has_dollars(path):
        return None
    for match in _VARIABLE.finditer(path):
        name = match[1] or match[2]
        if not os.environ.get(name):
            state = "empty" if name in os.environ else "not set"
            return f"the environment variable `{name}` is {state}."
    return None


def _has_dollars(path: str) -> bool:
    """Whether the first name with a dollar sign is one that is there."""
    before, _, after = path.partition("$")
    return bool(after) and os.path.lexists(f"{before}${after.partition('/')[0]}")


def ray_address() -> str | None:
    """Of the cluster to join; None: this machine is to be one of its own."""
    named = os.environ.get(_ADDRESS, "").strip()
    return None if named in ("", "local") else named


def set_environment() -> None:
    """Make this process's environment one that Ray may be imported and started in."""
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    if ray_address() is None:
        os.environ.pop(_ADDRESS, None)
    named = os.environ.get("TMPDIR", "")
    if not _holds(named, _LISTENER):  # Ray's dashboard starts processes by Python's means
        os.environ["TMPDIR"] = next((p for p in _TEMPORARY if _writable(p)), _TEMPORARY[0])
    pass_proxy()


def for_cluster(address: str = "") -> dict[str, str]:
    """Variables for processes of ours on a cluster, which need not inherit this one's.

    Args:
        address: what Ray's State API is asked at; it asks whichever cluster the machine mentioned
            last otherwise.
    """
    if not address:
        return _SETTINGS | _SAFE_PATH
    pass_proxy(address.rpartition(":")[0].strip("[]"))
    kept = _PAST_PROXY if _proxies() else ()
    return {_ADDRESS: address} | {name: os.environ[name] for name in kept if name in os.environ}


def pass_proxy(*hosts: str) -> None:
    """Let no proxy stand before these hosts and this machine itself."""
    if not _proxies():
        return
    known = next((os.environ[name] for name in _PAST_PROXY if os.environ.get(name)), "")
    names = [name for name in map(str.strip, known.split(",")) if name]
    if "*" not in names:
        names = list(dict.fromkeys([*names, *_LOOPBACK, *hosts]))
    # Programs differ in which of the two they read.
    os.environ.update(dict.fromkeys(_PAST_PROXY, ",".join(names)))


def _proxies() -> list[str]:
    return [name for name in _PROXIES if os.environ.get(name) or os.environ.get(name.upper())]


def drop_launchers() -> None:
    """For workers: forget the launcher that something around us was started by. DeepSpeed takes
    Open MPI's ranks for its own."""
    for name in [name for name in os.environ if name.startswith(_LAUNCHERS)]:
        del os.environ[name]


def check_loopback() -> None:
    """Ray on this machine listens there; without, it waits for half a minute for a port.

    Raises:
        ResourceError: this machine has no IPv4 loopback.
    """
    try:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
    except OSError as error:
        raise ResourceError(
            f"Ray needs the address 127.0.0.1, and this machine's loopback has none "
            f"({error.strerror or error}). Give it one: ip addr add 127.0.0.1/8 dev lo; "
            "ip link set lo up."
        ) from error


def own_token() -> None:
    """Ray keeps the token of the cluster that it starts in the home folder. Where it cannot, the
    token is one for this process and those that it starts."""
    if any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")):
        return
    try:
        folder = Path.home() / ".ray"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder / "auth_token", os.R_OK) or os.access(folder, os.W_OK):
            return
    except (OSError, RuntimeError):  # the latter: nobody knows where home is
        pass
    os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


def ray_folder() -> str:
    """Where Ray on this machine may keep its sockets and logs: the usual place if it can be
    written and is short enough for a socket.

    Raises:
        ResourceError: there is none, or the one that RAY_TMPDIR names is not.
    """
    named, usual = os.environ.get("RAY_TMPDIR"), os.environ.get("TMPDIR")
    places = [named] if named else [usual, *_TEMPORARY] if usual else [*_TEMPORARY]
    for place in map(os.path.abspath, places):
        # The first may be another user's.
        for folder in (f"{place}/ray", f"{place}/ray-{os.getuid()}"):
            first = folder if os.path.exists(folder) else place
            if _holds(folder, _SOCKET) and _writable(first):
                return folder
    told = f"RAY_TMPDIR is {named}: Ray" if named else "Ray"
    raise ResourceError(
        f"{told} needs a folder that can be written, with a path of at most "
        f"{_LONGEST_SOCKET - len('/ray' + _SOCKET)} bytes. Set RAY_TMPDIR to one, such as /tmp."
    )


def _holds(folder: str, socket: str) -> bool:
    return len(os.fsencode(folder + socket)) <= _LONGEST_SOCKET


def _writable(folder: str) -> bool:
    return os.access(folder, os.W_OK | os.X_OK)


def leave_working_folder() -> None:
    """Import nothing from it, if it is on the path by accident: ``PYTHONPATH=$PYTHONPATH:/mine``
    names it where PYTHONPATH was empty."""
    path = os.environ.get("PYTHONPATH", "")
    if path != _without_empty(path):
        os.environ["PYTHONPATH"] = _without_empty(path)
        with suppress(ValueError, OSError):
            sys.path.remove(os.getcwd())


@contextmanager
def safe_path() -> Iterator[None]:
    """What is started in here, and what that starts in turn (Ray's dashboard a fork server, a
    worker a resource tracker), imports nothing from the working folder."""
    settings = _safe_path()
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _safe_path() -> dict[str, str]:
    path = os.environ.get("PYTHONPATH")
    named = {} if path is None else {"PYTHONPATH": _without_empty(path)}
    return _SAFE_PATH | named


def _without_empty(path: str) -> str:
    return os.pathsep.join(filter(None, path.split(os.pathsep)))


def import_path() -> list[str]:
    """Folders that workers import from besides those of their Python: the one of this package,
    where it is not installed like any other. The folder that the study is started in is none:
    whatever is called `torch.py` or `study.py` there is not meant."""
    folder = package_folder().parent
    return [] if folder.name in ("site-packages", "dist-packages") else [str(folder)]
