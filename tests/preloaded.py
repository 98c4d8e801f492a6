"""Imported once, by the server that tests' processes are forked from; see `tests.forked`."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read on import

# For the import alone: what workers and commands would spend seconds on.
import deepspeed  # noqa: F401

import study.api
import study.cli.app
import study.orchestration.preflight
import study.report
import study.training.loop  # noqa: F401
