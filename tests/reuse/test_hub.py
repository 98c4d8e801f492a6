"""Sending a model to the Hub: the real client against a server of the Hub's protocol here."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from study.basics.errors import UserError
from study.reuse.hub import check_login

TOKEN = "hf_" + "a" * 34


class Hub(BaseHTTPRequestHandler):
    """Knows one user; keeps what is committed in memory."""

    files: dict[str, bytes]
    private: dict[str, bool]

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer(401, {"error": "Invalid credentials"})
        if self.path == "/api/whoami-v2":
            return self._answer(200, {"name": "someone", "type": "user", "auth": {}})
        return self._answer(200, {"id": "someone/model", "sha": "0" * 40, "siblings": []})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._answer(401, {"error": "Invalid credentials"})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            private = asked.get("private") or asked.get("visibility") == "private"
            type(self).private[asked["name"]] = private
            return self._answer(200, {"url": f"{self._root}/someone/{asked['name']}"})
        if "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]
            return self._answer(200, {"files": modes})
        if "/commit/" in self.path:
            for line in body.decode().splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    value = entry["value"]
                    type(self).files[value["path"]] = base64.b64decode(value["content"])
            answer = {"commitUrl": f"{self._root}/someone/model/commit/1", "commitOid": "1" * 40}
            return self._answer(200, {**answer, "success": True})
        return self._answer(200, {"message": "fine"})

    @property
    def _root(self) -> str:
        return f"http://{self.headers['Host']}"

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def hub() -> Iterator[tuple[str, type[Hub]]]:
    kind = type("OwnHub", (Hub,), {"files": {}, "private": {}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", kind
    server.shutdown()
    server.server_close()


def in_a_process(code: str, url: str, token: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """The client reads its settings once, on import."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "HF_ENDPOINT": url,
        "HF_TOKEN": token,
        "HF_HOME": str(folder / "home"),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_XET": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    program = f"""
import sys
from pathlib import Path
from study.basics.errors import UserError
from study.reuse.hub import check_login, push
try:
    {code}
except UserError as error:
    print(error)
    sys.exit(2)
"""
    return subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_a_folder_arrives_whole_in_a_private_repository(
    hub: tuple[str, type[Hub]], tmp_path: Path
) -> None:
    url, server = hub
    folder = tmp_path / "model"
    folder.mkdir()
    contents = {"README.md": b"# card", "config.json": b"{}", "model.safetensors": b"\x00" * 64}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    code = f"check_login('someone/model'); print(push(Path({str(folder)!r}), 'someone/model'))"
    done = in_a_process(code, url, TOKEN, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "/someone/model" in done.stdout
    assert server.files == contents
    assert server.private == {"model": True}


def test_a_login_that_is_refused_is_told_before_training(
    hub: tuple[str, type[Hub]], tmp_path: Path
) -> None:
    done = in_a_process("check_login('someone/model')", hub[0], "hf_wrong", tmp_path)
    assert done.returncode == 2, done.stderr
    assert "--push-to-hub someone/model: " in done.stdout
    assert "hf auth login" in done.stdout
    assert "hf_wrong" not in done.stdout


def test_a_hub_that_does_not_answer_is_one_line(tmp_path: Path) -> None:
    done = in_a_process("check_login('someone/model')", "http://127.0.0.1:9", TOKEN, tmp_path)
    assert done.returncode == 2, done.stderr
    assert "--push-to-hub someone/model: the Hub does not answer" in done.stdout


@pytest.mark.parametrize("name", ["", "a/b/c", "-model", "some one/model", "x" * 200])
def test_what_is_no_repository_is_refused_without_asking(name: str) -> None:
    with pytest.raises(UserError, match="is no repository"):
        check_login(name)
