"""What a study needs before Ray: tokenised data, a model that can be split, a plan.

No Ray in here: `study plan` uses it on a laptop.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from study.advice import plan_warnings
from study.config import StudyConfig
from study.errors import StoreError, UserError
from study.paths import StudyPaths
from study.plan import ModelFacts, StudyPlan, plan_study
from study.reading import read_study
from study.records import DataSummary, StepCosts, WarmStart
from study.results import StudyResults
from study.warm_start import warm_start


@dataclass(frozen=True)
class Prepared:
    """A study that is ready to run.

    Attributes:
        plan: with the probe that was handed in.
        data: what preparing the data found.
        warnings: what a reader of the results should know beforehand.
    """

    plan: StudyPlan
    data: DataSummary
    warnings: tuple[str, ...]


def prepare_study(
    config: StudyConfig,
    probe: StepCosts | None = None,
    known_start: WarmStart | None = None,
    known_data: DataSummary | None = None,
) -> Prepared:
    """Tokenise the data once, look at the model, lay out the plan.

    Args:
        known_start: on record already; earlier studies are read where there is none.
        known_data: on record already.

    Raises:
        DataError: the data cannot be used, or a dataset size is beyond the pool.
        ModelError: the model or tokenizer cannot be loaded, or cannot be split into blocks.
        UserError: a LIFT structure that does not fit the model.
    """
    from study.training.data import check_sizes, prepare_data
    from study.training.model import check_splittable, load_tokenizer

    tokenizer = load_tokenizer(config.model)
    day = known_data.chat_date if known_data else None
    data = prepare_data(config, StudyPaths(config.results_dir).data, tokenizer, day)
    check_sizes(config, data)
    blocks, tied = check_splittable(config.model, config.task, max(2, len(data.label_names)))
    cached = config.prefix_cache.enabled is not False
    start = known_start
    if start is None and config.search.warm_start:
        start = warm_start(config, {_name(s): _earlier(s) for s in config.search.warm_start})
    plan = plan_study(config, ModelFacts(blocks, probe, cached, tied), start)
    return Prepared(plan, data, tuple(plan_warnings(plan, data)))


def _earlier(source: str) -> StudyResults:
    try:
        return read_study(source)
    except UserError as error:
        raise StoreError(f"search.warm_start: {source} cannot be read. {error}") from error


def _name(source: str) -> str:
    """What an earlier study is called in notes: a results folder's own name."""
    path = Path(source)
    return path.parent.name if path.suffix in (".yaml", ".yml") else path.name
