"""Checks of what this machine can tell without Ray: storage, data, model, plan, disk."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from study.basics.database_url import sqlite_path
from study.basics.errors import StoreError
from study.basics.owned import check_url, claim
from study.basics.remote import RemoteFolder
from study.basics.text_format import byte_size, counted, short_count
from study.config.load import StudyConfig
from study.config.tracking_needs import check_trackers
from study.orchestration.preflight.base import Finding, Status
from study.orchestration.preflight.node_task import unwritable
from study.orchestration.prepare import Prepared, data_of, prepare_known
from study.protocol.records import DataSummary
from study.store.connect import make_parent, stored_study_names
from study.store.study_store import StudyStore

if TYPE_CHECKING:
    from study.training.model.shape import ModelShape

LEAVE_FREE = 2**30
"""Bytes of disk beyond the estimate: database, logs, the report."""


def check_storage(config: StudyConfig) -> Finding:
    """Whether the results folder can be made and written to, and is ours to use.

    Raises:
        StoreError: it is a URL, and cannot; or it holds what is not ours.
    """
    if config.results_url is not None:
        check_url(config.results_url)
        remote, name = RemoteFolder(config.results_url), f".study-check-{uuid.uuid4().hex[:8]}"
        remote.write(name, b"")
        remote.remove(name)
    folder = config.results_dir
    if why := unwritable(folder):
        remedy = "Set storage.results to a folder that you can write to."
        return Finding(f"The results folder cannot be written: {why}.", Status.FAIL, remedy)
    claim(folder, config.results_url)
    return Finding(f"{config.results_url or folder} can be written")


def check_database(config: StudyConfig) -> tuple[Finding, StudyStore | None]:
    """Whether the Optuna storage answers, and the study's store if it is there already.

    Raises:
        StoreError: it does not answer, or holds a study of another program version.
    """
    url = config.database_url
    names = stored_study_names(url)
    if config.name in names:
        store = StudyStore.open(url, config.name, config.storage)
        ended = sum(r.outcome is not None for r in store.results().trials)
        return Finding(f"holds this study, {counted(ended, 'trial')} ended"), store
    path = sqlite_path(url)
    if path is None:
        return Finding(f"answers; {len(names)} Optuna studies there, this one is new"), None
    make_parent(url)
    if why := unwritable(path.parent):
        raise StoreError(
            f"{path} cannot be written: {why}. Set storage.database to a file in a folder that "
            "you can write to, or to a PostgreSQL URL."
        )
    return Finding(f"{path.name} can be written; the study is new"), None


def check_tracking(config: StudyConfig) -> Finding:
    """Whether what the trackers need is installed; they run beside the driver.

    Raises:
        UserError: something is not.
    """
    check_trackers(config.tracking)
    return Finding(f"{', '.join(config.tracking)}: installed")


def check_data(config: StudyConfig, store: StudyStore | None) -> tuple[Finding, DataSummary]:
    """Whether the data parses, splits and is enough.

    Args:
        store: of the study, if it has begun.

    Raises:
        DataError, ModelError: as `prepare_study`.
    """

    summary = data_of(config, None if store is None else store.data)
    sizes = ", ".join(map(str, config.dataset_sizes))
    return Finding(
        f"{counted(summary.pool, 'example')} to train on for {sizes}; {summary.validation} "
        f"validation, {summary.test} test, {summary.retention or 'no'} retention"
    ), summary


def check_model(config: StudyConfig) -> tuple[Finding, ModelShape]:
    """Whether the model can be loaded and cut into blocks.

    Raises:
        ModelError: it cannot.
    """
    from study.training.model.shape import model_shape

    shape = model_shape(config.model, config.task)
    local = Path(config.model.path).expanduser().is_dir()
    hub = "" if local else "; a hub id: every node downloads its weights once"
    return Finding(
        f"{shape.architecture}, {short_count(shape.parameters)} parameters, "
        f"{counted(len(shape.layout.blocks), 'block')}{hub}"
    ), shape


def check_tokens(config: StudyConfig, shape: ModelShape, data: DataSummary) -> Finding:
    """Whether the model takes examples as long, and token ids as high, as the data has.

    Raises:
        ModelError: it does not.
    """
    shape.refuse(data)
    wanted, limit = config.training.sequence_length, shape.positions
    if limit is None or wanted <= limit:
        most = f"the model takes {limit}" if limit else "the model has no limit"
        longest = f"longest example {data.longest} tokens, sequence_length {wanted}; {most}"
        return Finding(longest)
    # Rotary positions go on for ever, but the model has never seen them.
    return Finding(
        f"sequence_length is {wanted}, the longest example has {data.longest} tokens, and the "
        f"model was made for {limit}.",
        Status.WARN,
        f"Set training.sequence_length to {limit} or less, or use a model for longer text.",
    )


def check_plan(config: StudyConfig, store: StudyStore | None) -> tuple[Finding, Prepared]:
    """Whether every trial can be laid out; the same that `study run` does first.

    Args:
        store: of the study, if it has begun.

    Raises:
        UserError: as `prepare_study`.
    """
    prepared = prepare_known(config, store)
    plan = prepared.plan
    notes = len(prepared.warnings)
    more = f"; {counted(notes, 'note')} on it in `study plan`" if notes else ""
    trials = counted(plan.trials, "trial")
    return Finding(f"{trials}, {len(plan.search)} of them search{more}"), prepared


def check_disk(
    config: StudyConfig, checkpoints: Sequence[int], trials: int, free: int | None = None
) -> Finding:
    """Whether the results folder's disk has room for the checkpoints.

    Args:
        checkpoints: bytes of one checkpoint in each arm.
        trials: that run at once.
        free: bytes free on that disk; None: look.
    """
    if free is None:
        free = shutil.disk_usage(config.results_dir).free
    # A new checkpoint is complete before the old one goes.
    needed = 2 * trials * max(checkpoints)
    what = f"checkpoints of {trials} {'trial' if trials == 1 else 'trials'} at once"
    found = f"{byte_size(free)} free; {what} take about {byte_size(needed)}"
    if needed + LEAVE_FREE > free:
        remedy = (
            "Free some disk, point storage.results to a larger one, lower "
            "resources.concurrent_trials, or set training.checkpoint_share to 0."
        )
        return Finding(f"{found}, and {byte_size(LEAVE_FREE)} should stay.", Status.FAIL, remedy)
    return Finding(found)
