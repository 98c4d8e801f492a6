"""A real S3 server on this machine, by moto: HTTP, buckets, multi-part uploads, error codes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.helpers.ray_head import free_port

BUCKET = "bucket"


def s3_environment(port: int) -> dict[str, str]:
    """What tells a client of the server; nothing in it is secret."""
    return {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextmanager
def s3_server() -> Iterator[int]:
    """Its port; the bucket `BUCKET` is there. This process's environment is not changed."""
    port = free_port()
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and server.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        made = subprocess.run(
            [sys.executable, "-c", _MAKE_BUCKET, str(port), BUCKET],
            env=os.environ | s3_environment(port),
            check=True,
        )
        assert made.returncode == 0
        yield port
    finally:
        server.kill()
        server.wait()


_MAKE_BUCKET = """
import sys
from pyarrow.fs import S3FileSystem
S3FileSystem(
    endpoint_override=f"http://127.0.0.1:{sys.argv[1]}", allow_bucket_creation=True
).create_dir(sys.argv[2])
"""
