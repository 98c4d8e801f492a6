"""Processes that start with everything imported: forked from a server, in a fraction of the
seconds that a bare interpreter takes."""

from __future__ import annotations

import multiprocessing

METHOD = "forkserver"
multiprocessing.get_context(METHOD).set_forkserver_preload(["tests.helpers.preloaded"])
