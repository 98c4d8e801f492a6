from __future__ import annotations

import os
import subprocess
import sys

from study.training.engine.ops import prepare_ops


def test_a_lock_left_by_a_killed_compile_does_not_block_the_next_worker() -> None:
    folder = prepare_ops()
    lock = folder / "deepspeed_shm_comm" / "lock"
    assert lock.parent.is_dir()
    lock.touch()
    code = "from study.training.engine.ops import prepare_ops; prepare_ops()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, capture_output=True)
    assert not lock.exists()


def test_each_environment_has_its_own_folder() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TORCH_EXTENSIONS_DIR"}
    code = "from study.training.engine.ops import prepare_ops; print(prepare_ops('cuda'))"
    found = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    ).stdout.splitlines()[-1]
    assert sys.prefix in found or sys.prefix.strip("/").replace("/", "_") in found
