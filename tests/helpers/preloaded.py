"""Imported once, by the server that processes are forked from; see `tests.helpers.forked`."""

from __future__ import annotations

import gc
import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read on import

# For the import alone: what workers and commands would spend seconds on.
import deepspeed  # noqa: F401

import study.cli.app
import study.orchestration.preflight
import study.orchestration.prepare
import study.report
import study.training.loop  # noqa: F401

# A fork that never walks what it has inherited never copies it.
gc.freeze()
