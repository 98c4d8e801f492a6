"""Compiles DeepSpeed's CPU communication op once per environment, before workers need it."""

from __future__ import annotations

import fcntl
import gc
import logging
import os
import sys
import tempfile
from pathlib import Path

from study.basics.errors import ResourceError
from study.basics.surroundings import drop_launchers

log = logging.getLogger(__name__)


def prepare_ops(device_type: str = "cpu") -> Path:
    """Make sure that no worker has to compile, or waits for a compiler that is gone.

    DeepSpeed compiles `deepspeed_shm_comm` (about 26 s) when the first CPU process group starts,
    into a folder that all environments of a user share by default and then recompile in turns; a
    worker killed meanwhile leaves a lock on which every later one waits for ever. So each
    environment has its own folder, and one process at a time compiles there, under a lock that
    the system frees when its holder dies. Call it in every worker before the process group starts
    and before a model is loaded (what is loaded by then leaves the garbage collector's sight).

    Args:
        device_type: ``cpu`` compiles; on ``cuda`` nothing is needed and only the folder is set.

    Returns:
        The folder, also in the environment variable ``TORCH_EXTENSIONS_DIR``, which is kept when
        already set.
    """
    drop_launchers()
    _find_own_ninja()
    named = os.environ.get("TORCH_EXTENSIONS_DIR")
    folder = Path(named) if named else _own_folder()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["TORCH_EXTENSIONS_DIR"] = str(folder)
    if device_type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    _import_deepspeed()
    if not gc.get_freeze_count():
        # Each phase ends with a garbage collection; walking all these modules again takes 0.4 s.
        gc.collect()
        gc.freeze()
    if device_type == "cpu":
        with (folder / ".study.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            _build_shm_comm(folder)
    return folder


def _import_deepspeed() -> None:
    """Import DeepSpeed and its Muon optimizer, the latter with its kernels left uncompiled.

    The first engine imports Muon to see whether it is in use, and decorating its kernels imports
    all of torch's compiler: 3 to 4 s in every worker of every trial, for an optimizer that no
    trial can choose.
    """
    import deepspeed

    try:
        from study.training.deepspeed_internals import uncompiled

        with uncompiled():
            import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401
    except (ImportError, AttributeError) as error:
        log.warning("The first engine starts some seconds later (%s).", error)


def _find_own_ninja() -> None:
    """Put this environment's programs first. Unless it is activated, torch would find another
    ninja or none, and two versions of ninja build everything again after each other."""
    own = str(Path(sys.executable).parent)
    path = os.environ.get("PATH", "")
    if path.split(os.pathsep)[0] != own:
        os.environ["PATH"] = os.pathsep.join([own, path])


def _own_folder() -> Path:
    """Of this environment: in it, or in the home of whoever may not write there, or where that has
    no home either."""
    folder = Path(sys.prefix) / "torch_extensions"
    if os.access(folder if folder.exists() else sys.prefix, os.W_OK):
        return folder
    name = sys.prefix.strip("/").replace("/", "_")
    try:
        folder = Path.home() / ".cache" / "study" / name
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except (OSError, RuntimeError):  # the latter: nobody knows where home is
        pass
    own = Path(tempfile.gettempdir()) / f"study-{os.getuid()}"
    own.mkdir(mode=0o700, exist_ok=True)
    # What lies there is run: nobody else may have put it there.
    if own.is_symlink() or own.stat().st_uid != os.getuid() or own.stat().st_mode & 0o022:
        raise ResourceError(
            f"{own} belongs to somebody else. Set TORCH_EXTENSIONS_DIR to a folder of yours."
        )
    return own / name


def _build_shm_comm(folder: Path) -> None:
    import deepspeed
    from deepspeed.accelerator import get_accelerator

    builder = get_accelerator().create_op_builder("ShareMemCommBuilder")
    # Without a compiler DeepSpeed falls back to gloo by itself.
    if builder is None or not deepspeed.ops.__compatible_ops__.get(builder.NAME, False):
        return
    # Whoever compiles holds our lock, so a lock of torch's that is there now was left behind.
    for stale in folder.glob(f"**/{builder.NAME}/lock"):
        stale.unlink(missing_ok=True)
    builder.load(verbose=False)
