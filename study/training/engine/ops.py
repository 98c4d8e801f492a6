"""DeepSpeed, imported as every worker needs it: without what no trial uses."""

from __future__ import annotations

import gc
import logging
import os

from study.basics.surroundings import drop_launchers

log = logging.getLogger(__name__)


def prepare_deepspeed(device_type: str = "cpu") -> None:
    """Import DeepSpeed so that nothing is compiled, now or later.

    Call it in every worker before the process group starts and before a model is loaded (what is
    loaded by then leaves the garbage collector's sight).

    Args:
        device_type: ``cpu`` or ``cuda``.
    """
    drop_launchers()
    if device_type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    _import_deepspeed()
    if not gc.get_freeze_count():
        # Each phase ends with a garbage collection; walking all these modules again takes 0.4 s.
        gc.collect()
        gc.freeze()


def _import_deepspeed() -> None:
    """Import DeepSpeed and its Muon optimizer, the latter with its kernels left uncompiled.

    The first engine imports Muon to see whether it is in use, and decorating its kernels imports
    all of torch's compiler: 3 to 4 s in every worker of every trial, for an optimizer that no
    trial can choose.

    The first process group on CPUs would compile `deepspeed_shm_comm` (26 s, a C++ compiler, and
    a lock on which others wait for ever if the worker is killed). Only `inference_all_reduce`
    calls it, which training never does; DeepSpeed goes without where it is not compatible.
    """
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    try:
        from study.training.deepspeed_internals import uncompiled

        with uncompiled():
            import deepspeed.runtime.zero.muon.muon_optimizer
    except (ImportError, AttributeError) as error:
        log.warning("The first engine starts some seconds later (%s).", error)
