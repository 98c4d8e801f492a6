"""What a study needs before Ray: tokenised data, a model that can be split, a plan.

No Ray in here: `study plan` uses it on a laptop.
"""

from __future__ import annotations

from dataclasses import dataclass

from study.basics.owned import claim
from study.basics.paths import StudyPaths
from study.config.load import StudyConfig
from study.protocol.advice import plan_warnings
from study.protocol.plan import ModelFacts, StudyPlan, plan_trials
from study.protocol.records import DataSummary, StepCosts, WarmStart
from study.reuse.warm_start import earlier_study, warm_start
from study.store.opening import label_of
from study.store.study_store import StudyStore


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
    """Tokenise the data once, look at the model, lay out the plan. Changes nothing of a study that
    runs or has results.

    Args:
        known_start: on record already; earlier studies are read where there is none.
        known_data: on record already.

    Raises:
        StoreError: the results folder is not ours to use.
        DataError: the data cannot be used, or a dataset size is beyond the pool.
        ModelError: the model or tokenizer cannot be loaded, cannot be split into blocks, or fails
            at the data's tokens.
        UserError: a LIFT structure that does not fit the model.
    """
    from study.training.model.layout import meta_layout
    from study.training.model.load import meta_model
    from study.training.model.shape import model_limits

    claim(config.results_dir, config.results_url)
    data = data_of(config, known_data)
    model = meta_model(config.model, config.task, max(2, len(data.label_names)))
    layout = meta_layout(model)
    model_limits(model).refuse(data)
    cached = config.prefix_cache.enabled is not False
    start = known_start
    if start is None and config.search.warm_start:
        earlier = {label_of(s): earlier_study(s) for s in config.search.warm_start}
        start = warm_start(config, earlier)
    plan = plan_trials(config, ModelFacts(len(layout.blocks), probe, cached, layout.tied), start)
    return Prepared(plan, data, tuple(plan_warnings(plan, data)))


def data_of(config: StudyConfig, known: DataSummary | None) -> DataSummary:
    """Tokenise the data, or find them as they are.

    Args:
        known: on record already.

    Raises:
        DataError, ModelError: as `prepare_study`.
    """
    from study.training.data.prepare import check_sizes, prepare_data
    from study.training.model.load import load_tokenizer, own_head

    tokenizer, head = load_tokenizer(config.model), own_head(config.model, config.task)
    data = prepare_data(config, StudyPaths(config.results_dir).data, tokenizer, head, known)
    check_sizes(config, data)
    return data


def prepare_known(config: StudyConfig, store: StudyStore | None) -> Prepared:
    """`prepare_study` with what the study has on record, as it goes on: its probe, what its
    searches try first, and the date in its chats.

    Args:
        store: its results so far; None: there are none.
    """
    if store is None:
        return prepare_study(config)
    return prepare_study(config, store.probe, store.fixed_warm_start, store.data)
