"""The same sweep in four programs: what each costs beyond training, and how much memory it takes.

``plain``: Ray Tune and `TorchTrainer` as Ray's guide writes it; ``trainer``: Hugging Face
`Trainer.hyperparameter_search` on Ray; ``cold`` and ``warm``: this program with a Ray Train job
per trial and with worker groups that live on. All run the same trials one at a time on two CPU
workers, each program in a process, a Ray session and a folder of its own, which are gone when it
ends. Nothing is left out of the total seconds: they run from the start of a program's process to
its end. Start-up is the part before it hands out its first trial; for this program it includes
tokenising the data and measuring the base model.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.sweep_scripts.processes import Run, adopt_orphans, run
from tests.benchmarks.sweep_scripts.work import Report

ROOT = Path(__file__).parents[2]
SCRIPTS = f"{__package__}.sweep_scripts"
PROGRAMS = {
    "plain": ("Ray Tune + TorchTrainer", ["plain_ray"]),
    "trainer": ("Hugging Face hyperparameter_search", ["hf_search"]),
    "cold": ("this program, a job per trial", ["this_program", "cold"]),
    "warm": ("this program, warm groups", ["this_program", "warm"]),
}
_COLUMNS = (
    f"{'':<36}{'total s':>9}{'start-up':>10}{'training':>10}{'overhead s/trial':>18}"
    f"{'past start-up':>15}{'peak MiB':>10}{'loss':>8}"
)
_RATIO_COLUMNS = (
    f"{'plain script / program':<36}{'total s':>9}{'':>20}{'overhead s/trial':>18}"
    f"{'past start-up':>15}{'peak MiB':>10}"
)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--steps", type=int, default=30, help="of a trial")
    parser.add_argument("--evaluations", type=int, default=3, help="of a trial")
    parser.add_argument("--batch", type=int, default=8, help="examples per step")
    parser.add_argument("--examples", type=int, default=128, help="for training")
    parser.add_argument("--only", choices=PROGRAMS, nargs="+", default=list(PROGRAMS))
    parser.add_argument(
        "--many", type=int, nargs="?", const=1000, metavar="N",
        help="instead: N (1000) trials of 10 ms through this program's driver",
    )  # fmt: skip
    parser.add_argument("--limit", type=float, default=3600, help="seconds for one program")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    if options.steps % options.evaluations or options.evaluations < 2:
        parser.error("--steps must be a multiple of --evaluations, and those at least 2")
    return options


@dataclass(frozen=True)
class Figures:
    """One program's sweep.

    Attributes:
        total_seconds: from the start of its process to its end.
        startup_seconds: until it began to hand out trials.
        training_seconds: forward, backward, step and evaluations, all trials together.
        overhead_seconds: everything else, per trial.
        marginal_overhead_seconds: the same without start-up.
        peak_bytes: of its whole process tree, shared pages counted once.
        loss: mean over the trials of their lowest validation loss.
        left_over: processes that had to be killed after it.
        note: what to know about the figures.
    """

    total_seconds: float
    startup_seconds: float
    training_seconds: float
    overhead_seconds: float
    marginal_overhead_seconds: float
    peak_bytes: int
    loss: float
    left_over: int
    note: str

    @classmethod
    def of(cls, run: Run, report: Report) -> Figures:
        trials = len(report.training_seconds)
        startup = report.first_trial - run.started
        training = sum(report.training_seconds)
        return cls(
            run.seconds, startup, training,
            (run.seconds - training) / trials, (run.seconds - startup - training) / trials,
            run.peak_bytes, statistics.mean(report.losses), run.left_over, report.note,
        )  # fmt: skip

    def line(self, name: str) -> str:
        killed = f"; {self.left_over} processes had to be killed" if self.left_over else ""
        return (
            f"{name:<36}{self.total_seconds:>9.1f}{self.startup_seconds:>10.1f}"
            f"{self.training_seconds:>10.1f}{self.overhead_seconds:>18.2f}"
            f"{self.marginal_overhead_seconds:>15.2f}{self.peak_bytes / 2**20:>10.0f}"
            f"{self.loss:>8.3f}  {self.note}{killed}"
        )

    def ratios(self, plain: Figures) -> dict[str, float]:
        """The plain script's figures over this one's: above 1 is better than the plain script."""
        names = (
            "total_seconds", "overhead_seconds", "marginal_overhead_seconds", "peak_bytes",
        )  # fmt: skip
        return {name: getattr(plain, name) / getattr(self, name) for name in names}


def environment(folder: Path, **more: str) -> dict[str, str]:
    """For a program's process: whatever the caller has set for Ray stays out of it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "TUNE_"))}
    paths = {
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), kept.get("PYTHONPATH")])),
        "RAY_TMPDIR": str(folder),
    }
    switches = {
        "RAY_USAGE_STATS_ENABLED": "0", "TOKENIZERS_PARALLELISM": "false", "DS_ACCELERATOR": "cpu",
    }  # fmt: skip
    return kept | paths | switches | more


def prepare(folder: Path, options: argparse.Namespace, trials: int) -> None:
    """Fill `folder` with model, data and trials."""
    numbers = (trials, options.steps, options.evaluations, options.batch, options.examples)
    command = [sys.executable, "-m", f"{SCRIPTS}.prepare", str(folder), *map(str, numbers)]
    folder.mkdir()
    done = subprocess.run(command, env=environment(folder), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)


def run_script(arguments: list[str], folder: Path, limit_seconds: float) -> Run | None:
    """Run one of the scripts on `folder`; None, and its last words, if it failed."""
    log = folder / "log.txt"
    script, *more = arguments
    command = [sys.executable, "-m", f"{SCRIPTS}.{script}", str(folder), *more]
    done = run(command, environment(folder), log, limit_seconds)
    if done.exit_code == 0:
        return done
    how = f"exit code {done.exit_code}" if done.exit_code else f"over {limit_seconds:.0f} s"
    tail = "".join(log.read_text(errors="replace").splitlines(keepends=True)[-40:])
    print(f"{script} failed ({how}):\n{tail}", file=sys.stderr, flush=True)
    return None


def compare(folder: Path, options: argparse.Namespace) -> dict[str, Figures]:
    """Run the chosen programs one after the other; those that failed are missing."""
    prepare(folder / "made", options, options.trials)
    found: dict[str, Figures] = {}
    print(_COLUMNS, flush=True)
    for name in options.only:
        title, arguments = PROGRAMS[name]
        own = folder / name
        shutil.copytree(folder / "made", own)
        done = run_script(arguments, own, options.limit)
        if done is not None:
            found[name] = Figures.of(done, Report.read(own))
            print(found[name].line(title), flush=True)
        shutil.rmtree(own)
    return found


def print_ratios(found: Mapping[str, Figures]) -> None:
    print(_RATIO_COLUMNS)
    for name, figures in found.items():
        total, overhead, marginal, peak = figures.ratios(found["plain"]).values()
        print(
            f"{PROGRAMS[name][0]:<36}{total:>9.2f}{'':>20}{overhead:>18.2f}{marginal:>15.2f}"
            f"{peak:>10.2f}"
        )


def many(folder: Path, options: argparse.Namespace) -> dict[str, Any] | None:
    """Very many trials of 10 ms; None if that failed."""
    own = folder / "many"
    prepare(own, options, options.many)
    done = run_script(["many"], own, options.limit)
    if done is None:
        return None
    found = json.loads((own / "many.json").read_text())
    print(f"{options.many} trials of 10 ms in {done.seconds:.0f} s")
    for part in ("first", "last"):
        stretch = found[part]
        print(
            f"{part} {found['window']}: {1000 * stretch['overhead_seconds']:.0f} ms of overhead "
            f"per trial, driver's own memory {stretch['driver_bytes'] / 2**20:.0f} MiB"
        )
    return found | {"total_seconds": done.seconds, "left_over": done.left_over}


def main() -> None:
    options = parse()
    adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="sweeps-") as name:
        if options.many:
            figures = many(Path(name), options)
            complete = figures is not None
        else:
            found = compare(Path(name), options)
            complete = len(found) == len(options.only)
            figures = {name: dataclasses.asdict(f) for name, f in found.items()}
            if "plain" in found:
                print_ratios(found)
                for program, its in found.items():
                    figures[program]["plain_over_this"] = its.ratios(found["plain"])
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    if not complete:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
