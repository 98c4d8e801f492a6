"""Search with earlier winners: is half of the trials as good as all of them from nothing?

For every seed a full-arm study searches at one dataset size, in one replicate or several; at
another size one search of as many trials begins from nothing, and one of half as many begins with
the first one's winners. Prints the winners' validation losses, their mean difference and its 95 %
interval (t, over seeds). Trials run one after the other in this process, without Ray: their losses
are the same.
"""

from __future__ import annotations

import argparse
import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from study.config.load import StudyConfig
from study.protocol.plan import ModelFacts, plan_trials
from study.protocol.records import TrialRecord, TrialState, WarmStart
from study.protocol.results import StudyResults
from study.reuse.warm_start import warm_start
from tests.helpers.workers import run_workers

RHO = 0.01


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--sizes", type=int, nargs=2, default=(48, 96))
    parser.add_argument("--replicates", type=int, default=1, help="of the earlier study")
    parser.add_argument("--epochs", type=float, default=1)
    return parser.parse_args()


def config_of(
    folder: Path, seed: int, size: int, trials: int, epochs: float, replicates: int = 1
) -> StudyConfig:
    from study.cli.examples.demo import BASE_MODEL

    return StudyConfig.model_validate(
        {
            "name": "warm",
            "seed": seed,
            "model": {"path": str(BASE_MODEL)},
            "data": {
                "train": str(folder / "task.jsonl"),
                "prompt": "{prompt}",
                "response": "{response}",
                "validation_size": 60,
                "test_size": 120,
                "retention": None,
            },
            "dataset_sizes": [size],
            "arms": {"full": {}},
            "search": {
                "space": {
                    "shared": {
                        "learning_rate": {"low": 1e-4, "high": 3e-3, "log": True},
                        "warmup_ratio": {"low": 0.0, "high": 0.1},
                        "max_grad_norm": {"low": 0.3, "high": 3.0, "log": True},
                    }
                },
                "trials": trials,
                "replicates": replicates,
            },
            "confirm": {"seeds": 0},
            "training": {
                "epochs": epochs,
                "min_steps": 12,
                "global_batch_size": 16,
                "sequence_length": 128,
                "evaluations": 2,
            },
            "storage": {"results": str(folder / f"results-{seed}")},
        }
    )


def search(
    config: StudyConfig, start: WarmStart | None, data: Any, base: Any, placement: Any
) -> StudyResults:
    """Every search trial, trained one after the other."""
    from study.training.loop import run_trial

    records = []
    for spec in plan_trials(config, ModelFacts(6), start).search:
        curve: list[Any] = []
        outcome = run_trial(config, spec, data, placement, curve.append, base_model=base)
        complete = outcome.status == "finished"
        state = TrialState.COMPLETE if complete else TrialState.FAIL
        records.append(TrialRecord(spec, state, tuple(curve), outcome))
    return StudyResults(config, tuple(records), warm_start=start)


def one_seed(
    folder: Path, args: argparse.Namespace, rank: int, world_size: int
) -> list[tuple[float, float]]:
    from study.training.data.prepare import prepare_data
    from study.training.data.tokenised import StudyData
    from study.training.model.base_model import BaseModel
    from study.training.model.load import load_tokenizer
    from study.training.placement import Placement

    placement = Placement(torch.device("cpu"), rank, world_size)
    earlier_size, size = args.sizes
    found = []
    for seed in range(args.seeds):
        make = functools.partial(config_of, folder, seed, epochs=args.epochs)
        earlier_config = make(size=earlier_size, trials=args.trials, replicates=args.replicates)
        place = earlier_config.results_dir / "data"
        found = prepare_data(earlier_config, place, load_tokenizer(earlier_config.model))
        data = StudyData.open(place, found.fingerprint)
        base = BaseModel(earlier_config, None, placement, keep=True)
        run = functools.partial(search, data=data, base=base, placement=placement)
        earlier = run(earlier_config, None)
        cold = run(make(size=size, trials=args.trials), None)
        half = make(size=size, trials=args.trials // 2)
        warm = run(half, warm_start(half, {"earlier": earlier}))
        # The first half of the cold design is the design of half as many trials.
        runs = (cold.trials, warm.trials, cold.trials[: args.trials // 2])
        best = [min(t.score for t in trials if t.score) for trials in runs]
        print(
            f"seed {seed}: {args.trials} trials {best[0]:.4f}, {args.trials // 2} warm "
            f"{best[1]:.4f}, {args.trials // 2} from nothing {best[2]:.4f}",
            flush=True,
        )
        found.append(tuple(best))
    return found


def main() -> None:
    from study.cli.examples.demo.text import write_demo_files

    args = parse()
    with tempfile.TemporaryDirectory() as name:
        write_demo_files(Path(name))
        (rows,) = run_workers(functools.partial(one_seed, Path(name), args), 1)
    losses = np.array(rows)
    titles = (f"{args.trials // 2} warm", f"{args.trials // 2} from nothing")
    for column, title in enumerate(titles, start=1):
        difference = losses[:, column] - losses[:, 0]
        mean, error = difference.mean(), stats.sem(difference)
        half = stats.t.ppf(0.975, len(difference) - 1) * error
        print(
            f"{title} - {args.trials} trials: {mean:+.4f} nats, 95 % interval "
            f"[{mean - half:+.4f}, {mean + half:+.4f}] over {len(difference)} seeds; rho {RHO}"
        )


if __name__ == "__main__":
    main()
