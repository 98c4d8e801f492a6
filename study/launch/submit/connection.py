"""The dashboard of a Ray cluster: reached, asked for its versions, and spoken to."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ray
import requests
from ray.job_submission import JobSubmissionClient

from study.basics import surroundings
from study.basics.errors import StudyError, UserError

_CONNECT_SECONDS = 10
_ANSWER_SECONDS = 60
_UPLOAD_SECONDS = 600
_TOKEN_FILE = Path("~/.ray/auth_token")
# They would override the address that the user gave.
_RAY_ADDRESSES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
_HOW_TO_REACH = (
    "--address is that of the dashboard on the cluster's head, such as http://HEAD:8265. A "
    "dashboard that listens on its own machine alone is reached through `ssh -L "
    "8265:localhost:8265 HEAD` or `kubectl port-forward service/NAME-head-svc 8265`."
)


# They tell of every package that is sent.
for _name in ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging"):
    logging.getLogger(_name).setLevel(logging.WARNING)


class LostConnectionError(StudyError):
    """The dashboard does not answer now."""


class NoSuchJobError(UserError):
    """The cluster knows no job of that name."""


class Dashboard(JobSubmissionClient):
    """Ray's client with time limits, and with errors for people.

    Args:
        url: with scheme and port.
        token: of a cluster that asks for one.

    Attributes:
        url: as given.
        asks_for_token: whether the cluster keeps strangers out.
    """

    def __init__(self, url: str, token: str | None) -> None:
        self.url, self.asks_for_token = url, token is not None
        # Not Ray's own headers: where RAY_AUTH_MODE is set they tell every server the token.
        self._sent = {} if token is None else {"Authorization": f"Bearer {token}"}
        # It may be a tunnel's end on this machine.
        surroundings.pass_proxy()
        with _without_variables(_RAY_ADDRESSES):
            super().__init__(url)

    def ask(self, path: str) -> Any:
        """The JSON answer to a GET request.

        Raises:
            LostConnectionError: no answer.
            UserError: the token is refused, or the answer is no JSON.
        """
        answer = self._do_request("GET", path)
        if answer.status_code != 200:
            self._raise_error(answer)
        return answer.json()

    def _do_request(self, method: str, endpoint: str, **options: Any) -> requests.Response:
        data, json_data = options.pop("data", None), options.pop("json_data", None)
        seconds = _ANSWER_SECONDS if data is None else _UPLOAD_SECONDS
        options.setdefault("timeout", (_CONNECT_SECONDS, seconds))
        try:
            answer = requests.request(
                method,
                self._address + endpoint,
                cookies=self._cookies,
                headers=self._sent,
                data=data,
                json=json_data,
                verify=self._verify,
                **options,
            )
        except requests.RequestException as error:
            raise LostConnectionError(f"{self.url}: {_reason(error)}") from error
        _check_token(self.url, answer)
        return answer

    def _raise_error(self, answer: requests.Response) -> None:
        if answer.status_code == 404:
            raise NoSuchJobError(answer.text.strip())
        lines = [line.strip() for line in answer.text.splitlines() if line.strip()]
        last = lines[-1] if lines else answer.reason
        told = f"{self.url}: the cluster answers {answer.status_code}: {last}"
        # Also a proxy's word for a head that is not there.
        raise (LostConnectionError if answer.status_code >= 500 else StudyError)(told)


def connect(address: str) -> Dashboard:
    """The dashboard at an address, after making sure that it is one and lets us in.

    Raises:
        UserError: nothing answers, it is something else, or it wants another token.
    """
    url = _url(address)
    mode = _authentication_mode(url)
    token = _token(url) if mode == "token" else None
    try:
        return Dashboard(url, token)
    except LostConnectionError as error:
        raise UserError(f"{error} {_HOW_TO_REACH}") from error
    except (KeyError, ValueError, RuntimeError, requests.RequestException) as error:
        raise _no_dashboard(url) from error


def check_versions(dashboard: Dashboard) -> None:
    """Ray and Python must be the same here and there: they exchange pickled functions.

    Raises:
        UserError: they are not.
    """
    versions = dashboard.ask("/api/version")
    theirs = {"Ray": str(versions["ray_version"])}
    ours = {"Ray": ray.__version__}
    try:
        answer = dashboard.ask("/api/v0/cluster_metadata")
        theirs["Python"] = _minor(str(answer["data"]["pythonVersion"]))
        ours["Python"] = _minor(platform.python_version())
    except (NoSuchJobError, KeyError, TypeError):
        pass  # an old Ray, which the first comparison names
    different = [name for name in theirs if theirs[name] != ours[name]]
    if different:
        told = " and ".join(f"{name} {theirs[name]} there, {ours[name]} here" for name in different)
        wanted = ", ".join(f"{name} {theirs[name]}" for name in different)
        raise UserError(
            f"{dashboard.url}: the cluster has other versions than this machine: {told}. Submit "
            f"from an environment with {wanted}, or start the cluster with this machine's. "
            "Nothing was submitted."
        )


def _url(address: str) -> str:
    url = address.strip().rstrip("/")
    url = url if "://" in url else f"http://{url}"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(f"--address {address} is no http address. {_HOW_TO_REACH}")
    if parts.username or parts.password:
        raise UserError("--address has a password in it. Leave it out; Ray's token is enough.")
    return url


def _authentication_mode(url: str) -> str:
    """``token`` or ``disabled``; asked without a token, so that no stranger is told one."""
    try:
        answer = requests.get(
            f"{url}/api/authentication_mode", timeout=(_CONNECT_SECONDS, _ANSWER_SECONDS)
        )
    except requests.RequestException as error:
        raise UserError(f"No answer from {url} ({_reason(error)}). {_HOW_TO_REACH}") from error
    try:
        return str(answer.json()["authentication_mode"])
    except (ValueError, KeyError, TypeError):
        raise _no_dashboard(url) from None


def _no_dashboard(url: str) -> UserError:
    return UserError(f"{url} answers, but not as the dashboard of a Ray cluster. {_HOW_TO_REACH}")


def _token(url: str) -> str:
    """Where Ray itself looks: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ``~/.ray/auth_token``."""
    token = os.environ.get("RAY_AUTH_TOKEN", "").strip()
    if token:
        return token
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    path = Path(named) if named else _TOKEN_FILE.expanduser()
    try:
        token = path.read_text("utf-8").strip()
    except OSError:
        token = ""
    if not token:
        raise UserError(
            f"{url}: the cluster asks for a token, and there is none in RAY_AUTH_TOKEN or {path}. "
            "Copy the cluster's (`ray get-auth-token` on its head), or name its file in "
            "RAY_AUTH_TOKEN_PATH."
        )
    return token


def _check_token(url: str, answer: requests.Response) -> None:
    if answer.status_code in (401, 403):
        source = next(
            (n for n in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH") if os.environ.get(n)),
            str(_TOKEN_FILE),
        )
        raise UserError(
            f"{url}: the cluster refuses the token from {source}. Copy the cluster's (`ray "
            "get-auth-token` on its head) into it."
        )


def _reason(error: requests.RequestException) -> str:
    """In a few words: requests wraps what happened several times."""
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror and not isinstance(cause, type(error)):
            return cause.strerror.lower()
        reason = getattr(cause, "reason", None) or (cause.args[0] if cause.args else None)
        cause = reason if isinstance(reason, BaseException) else cause.__context__
    return "the connection failed"


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


@contextmanager
def _without_variables(names: tuple[str, ...]) -> Iterator[None]:
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
