"""Studies that a change of structure must leave as they are.

    python -m tests.golden record FOLDER    runs them with the code as it is
    python -m tests.golden compare FOLDER   runs them again: plan, points and losses, to the last
                                            digit; and reads the recorded ones again: every number
                                            of the report, timings too, and best.yaml

Two studies of a tiny model, ZeRO 0 and 2, both arms, two sizes, search and confirm.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.helpers.data import task_rows, write_jsonl
from tests.helpers.models import tiny_model_folder
from tests.helpers.real_studies import write_study

STUDIES: dict[str, dict[str, Any]] = {
    "zero-0": {"zero": {"stage": 0}},
    "zero-2": {"zero": {"stage": 2}, "arms": {"lift": {"group_size": 1}, "full": {}}},
}
TIMED = ("second", "memory", "bytes", "started", "finished", "cost", "ray_train_job")
"""Parts of names of columns that differ from run to run."""
SHARED: dict[str, Any] = {
    "comparison": "tokens",
    "dataset_sizes": [16, 32],
    "confirm": {"seeds": 2},
    "seed": 7,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("command", choices=["record", "compare"])
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    golden = arguments.folder.absolute()
    if arguments.command == "record":
        for name in STUDIES:
            run(golden / name, name)
            (golden / f"{name}.json").write_text(json.dumps(ran(golden / name), indent=1))
            (golden / f"{name}-told.json").write_text(json.dumps(told(golden / name), indent=1))
        return 0
    differences = []
    for name in STUDIES:
        again = golden.parent / f"{golden.name}-again" / name
        subprocess.run(["rm", "-rf", again], check=True)
        run(again, name)
        differences += compared(json.loads((golden / f"{name}.json").read_text()), ran(again), name)
        expected = json.loads((golden / f"{name}-told.json").read_text())
        differences += compared(expected, told(golden / name), f"{name} told")
    print("\n".join(differences) or "identical")
    return 1 if differences else 0


def run(folder: Path, name: str) -> None:
    folder.mkdir(parents=True)
    tiny_model_folder(folder)
    write_jsonl(folder / "mine.jsonl", task_rows(160))
    study("run", write_study(folder, name=name, **SHARED, **STUDIES[name]))


def study(verb: str, *arguments: str | Path) -> str:
    command = [sys.executable, "-m", "study", verb, *map(str, arguments)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "COLUMNS": "100"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if result.returncode:
        raise SystemExit(f"{command}\n{result.stdout}\n{result.stderr}")
    return result.stdout


def results_of(folder: Path) -> Path:
    return folder / "results"


def ran(folder: Path) -> list[dict[str, Any]]:
    """Each trial's plan and losses, and those of its evaluations."""
    tables = [study("export", results_of(folder), "--what", w) for w in ("trials", "evaluations")]
    rows = [row for table in tables for row in csv.DictReader(table.splitlines())]
    return [{k: v for k, v in row.items() if not any(t in k for t in TIMED)} for row in rows]


def told(folder: Path) -> dict[str, Any]:
    """The report's numbers and words, and each arm's best configuration."""
    study("report", results_of(folder), "--output", folder / "report")
    report = json.loads((folder / "report" / "report.json").read_text())
    words = (folder / "report" / "report.md").read_text().splitlines()
    best = {
        arm: yaml.safe_load(study("best", results_of(folder), "--arm", arm, "--dataset-size", "32"))
        for arm in ("full", "lift")
    }
    return {"report": report, "words": words, "best": best}


def compared(expected: Any, found: Any, where: str) -> list[str]:
    """Where two documents differ; keys that one of them lacks are differences too."""
    if isinstance(expected, dict) and isinstance(found, dict):
        keys = sorted(expected.keys() | found.keys(), key=str)
        missing = object()
        parts = [
            compared(expected.get(k, missing), found.get(k, missing), f"{where}.{k}") for k in keys
        ]
        return [line for part in parts for line in part]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        parts = [
            compared(a, b, f"{where}[{i}]")
            for i, (a, b) in enumerate(zip(expected, found, strict=True))
        ]
        return [line for part in parts for line in part]
    return [] if expected == found else [f"{where}: {expected!r} became {found!r}"]


if __name__ == "__main__":
    sys.exit(main())
