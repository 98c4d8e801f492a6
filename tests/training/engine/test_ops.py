from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_nothing_is_compiled_for_a_process_group(tmp_path: Path) -> None:
    code = """
import os
from study.training.engine.ops import prepare_deepspeed
prepare_deepspeed()
import deepspeed, torch
rendezvous = f"file://{os.getcwd()}/rendezvous"
torch.distributed.init_process_group("gloo", init_method=rendezvous, rank=0, world_size=1)
deepspeed.init_distributed("gloo", dist_init_required=False)
assert deepspeed.comm.get_world_size() == 1
"""
    environment = os.environ | {"TORCH_EXTENSIONS_DIR": str(tmp_path / "built")}
    subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, timeout=120
    )
    assert not (tmp_path / "built").exists()
