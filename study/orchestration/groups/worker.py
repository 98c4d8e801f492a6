"""What a worker of a group runs: one task after another, as the switchboard hands them out."""

from __future__ import annotations

import json
import logging
import os
import traceback
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import ray
import ray.train
import ray.train.torch
import torch
from torch import Tensor

from study.basics.errors import OtherDataError, StoreError, StudyError
from study.basics.owned import claim
from study.basics.paths import StudyPaths
from study.basics.remote import RemoteFolder
from study.basics.text_files import write_bytes, write_text
from study.basics.urls import LogFormatter
from study.config.load import StudyConfig
from study.orchestration.groups.failures import failure_reason
from study.orchestration.ray_internals import is_preempted
from study.protocol.records import Measurement, OutcomeStatus, TrialOutcome, TrialSpec
from study.store.published import fetch_data


def work(payload: dict[str, Any]) -> None:
    """Runs on every worker of a group: tasks from the switchboard until there are no more."""
    from study.training.model.base_model import BaseModel

    switchboard = ray.get_actor(payload["switchboard"])
    try:
        config, placement, data = set_up(payload)
    except OtherDataError as error:
        ray.get(switchboard.refused.remote(payload["group"], str(error)))
        raise
    line = Line(payload["group"], switchboard, placement)
    keep = config.resources.reuse_workers is not False
    share = line.share if ray.train.get_context().get_local_world_size() > 1 else None
    base_model = BaseModel(config, data.summary.label_names, placement, keep, share)
    # This node's own: where the results are at a URL, its working folder may lie elsewhere.
    paths = StudyPaths(config.results_dir)
    while (task := line.next_task()) is not None:
        own = config
        if task["micro_batch_size"] is not None:
            own = with_micro_batch_size(config, task["micro_batch_size"])
        log = log_of_rank(paths.trial_log(task["task_id"]), placement.rank)
        if task["attempt"] > 1:
            fetch_log(config, log)
        with _logging_to(log, task["attempt"]):
            try:
                outcome = _run_task(own, task, line, data, placement, base_model, paths)
            except BaseException as error:
                line.failed(task, error, own)
                raise
            finally:
                share_log(config, log)
        line.finished(task, outcome)


def _run_task(
    config: StudyConfig,
    task: dict[str, Any],
    line: Line,
    data: Any,
    placement: Any,
    base_model: Any,
    paths: StudyPaths,
) -> dict[str, Any]:
    from study.training.baseline import measure_baseline
    from study.training.loop import run_trial

    if task["spec"] is None:
        baseline = measure_baseline(config, data, placement, base_model)
        return {"status": OutcomeStatus.FINISHED, "baseline": baseline.to_dict()}
    spec = TrialSpec.from_dict(task["spec"])
    listener = line.listen(task, spec)
    return run_trial(
        config,
        spec,
        data,
        placement,
        listener.report,
        checkpoint_place(config, paths, spec.trial_id),
        listener.signal,
        base_model,
        keep_prefix=task["prefix_cache"],
        keep_model=_model_keeper(task, config, data, placement, listener),
    ).to_dict()


def _model_keeper(
    task: dict[str, Any], config: StudyConfig, data: Any, placement: Any, listener: _Listener
) -> Any:
    """For a final run: saves the model, and beside it the outcome, which is on record nowhere
    else."""
    if not task.get("save_model"):
        return None
    from study.training.model.model_folder import save_model

    # This node's own, where the results are at a URL.
    folder = StudyPaths(config.results_dir).model

    def keep(model: Any, outcome: TrialOutcome) -> None:
        save_model(folder, model, config, data, placement)
        if placement.rank:
            return
        record = folder.with_suffix(".json")
        curve = [measurement.to_dict() for measurement in listener.reported]
        write_text(record, json.dumps({"outcome": outcome.to_dict(), "measurements": curve}))
        if config.results_url is not None:
            remote = RemoteFolder(config.results_url)
            remote.upload(folder, folder.name, marked=True)
            remote.upload(record, record.name)  # last: it says that all is there

    return keep


def checkpoint_place(config: StudyConfig, paths: StudyPaths, trial_id: str) -> Path | str:
    """Where a trial's checkpoint is: a folder that all nodes see, or a URL."""
    folder = paths.checkpoint(trial_id)
    if config.results_url is None:
        return folder
    return f"{config.results_url}/{folder.relative_to(paths.root).as_posix()}"


def log_of_rank(path: Path, rank: int) -> Path:
    """Rank 0's log is the trial's; the others write beside it."""
    return path.with_suffix(f".rank{rank}.log") if rank else path


def fetch_log(config: StudyConfig, path: Path) -> None:
    """Take up the log of attempts on other nodes, so that it is not lost."""
    if config.results_url is None:
        return
    try:
        found = RemoteFolder(config.results_url).read(f"{path.parent.name}/{path.name}") or b""
        own = path.read_bytes() if path.is_file() else b""
        if not own.startswith(found):  # the last attempt was elsewhere
            # One that was killed here has told nobody.
            write_bytes(path, found if found.startswith(own) else found + own)
    except (StoreError, OSError) as error:
        logging.getLogger(__name__).warning("%s", error)


def share_log(config: StudyConfig, path: Path) -> None:
    """Copy a log to where the results are, if that is not a folder that all nodes see."""
    if config.results_url is None:
        return
    try:
        RemoteFolder(config.results_url).upload(path, f"{path.parent.name}/{path.name}")
    except (StoreError, OSError) as error:  # the trial's result is worth more than its log
        logging.getLogger(__name__).warning("%s", error)


def with_micro_batch_size(config: StudyConfig, size: int) -> StudyConfig:
    """`config` with at most `size` examples per forward pass on one worker."""
    training = config.training.model_copy(update={"micro_batch_size_per_worker": size})
    return config.model_copy(update={"training": training})


class Line:
    """One rank's line from its group to the switchboard."""

    def __init__(self, name: str, switchboard: Any, placement: Any) -> None:
        self._name, self._switchboard, self._placement = name, switchboard, placement
        self._taken = 0
        self._memory = MemoryWatch()

    def next_task(self) -> dict[str, Any] | None:
        found = ray.get(self._switchboard.next_task.remote(self._name, self._taken))
        self._taken += 1
        return found

    def listen(self, task: dict[str, Any], spec: TrialSpec) -> _Listener:
        return _Listener(self._switchboard, task, spec, self._placement.rank)

    def share(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same tensors out of Ray's object store: one copy for all workers of a node."""
        context = ray.train.get_context()
        place = f"{self._name}/{context.get_node_rank()}"
        if context.get_local_rank() == 0:
            # NumPy knows no bf16.
            plain = {
                n: t.contiguous().flatten().view(torch.uint8).numpy() for n, t in tensors.items()
            }
            # In a list, or Ray would send the weights themselves.
            ray.get(self._switchboard.offer.remote(place, [ray.put(plain)]))
        (reference,) = ray.get(self._switchboard.offered.remote(place))
        found = ray.get(reference)
        return {
            name: read_only(found[name]).view(tensor.dtype).reshape(tensor.shape)
            for name, tensor in tensors.items()
        }

    def finished(self, task: dict[str, Any], outcome: dict[str, Any]) -> None:
        outgrown = self._placement.max(self._memory.outgrown())
        if self._placement.rank:
            return
        if outgrown or is_preempted():
            ray.get(self._switchboard.retire.remote(self._name))
        ray.get(self._switchboard.finished.remote(task["task_id"], task["attempt"], outcome))

    def failed(self, task: dict[str, Any], error: BaseException, config: StudyConfig) -> None:
        kind = failure_kind(error)
        size = None
        if kind == "out_of_memory":
            from study.training.engine.zero import resolve_micro_batch_size

            size = resolve_micro_batch_size(config.training, self._placement.world_size)
        reason = failure_reason(error) if str(error).strip() else repr(error)
        call = self._switchboard.failed
        ray.get(call.remote(task["task_id"], task["attempt"], kind, reason, size))


class _Listener:
    """Carries one trial's evaluations out and wishes about it in, on one rank."""

    def __init__(self, switchboard: Any, task: dict[str, Any], spec: TrialSpec, rank: int) -> None:
        self._switchboard, self._spec, self._rank = switchboard, spec, rank
        self._call = (task["task_id"], task["attempt"])
        self._stopped = False
        self.reported: list[Measurement] = []
        self._wish = None if rank else switchboard.signalled.remote(*self._call)

    def report(self, measurement: Measurement) -> None:
        if self._rank:
            return
        self.reported.append(measurement)
        call = self._switchboard.measured.remote(*self._call, measurement)
        # After the last one nobody is asked whether the trial goes on.
        if measurement.step < self._spec.steps:
            self._stopped = not ray.get(call)

    def signal(self) -> Any:
        from study.training.loop import Signal

        if self._stopped:
            return Signal.STOP
        if self._wish is not None:
            ready, _ = ray.wait([self._wish], timeout=0)
            if ready:
                wish, self._wish = ray.get(self._wish), None
                self._stopped = wish == "stop"
                if wish:
                    return Signal.STOP if self._stopped else Signal.PAUSE
        return Signal.PAUSE if is_preempted() else Signal.GO_ON


def read_only(array: np.ndarray) -> Tensor:
    """A tensor over memory that nobody may write to; torch warns that it cannot tell."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)


class MemoryWatch:
    """Notices when a process holds ever more from task to task."""

    LIMIT_BYTES = 2**30
    LIMIT_SHARE = 0.25

    def __init__(self) -> None:
        self._seen: list[int] = []

    def outgrown(self, held_bytes: int | None = None) -> bool:
        """Call it after each task. The second one is what later ones are compared with: the first
        leaves allocators and caches as they will be."""
        if held_bytes is None:
            held_bytes = psutil.Process().memory_info().rss
        self._seen.append(held_bytes)
        if len(self._seen) < 3:
            return False
        base = self._seen[1]
        return held_bytes - base > max(self.LIMIT_BYTES, self.LIMIT_SHARE * base)


def failure_kind(error: BaseException) -> str:
    """``out_of_memory``, ``fatal`` (it would happen again) or ``error``."""
    text = str(error).lower()
    memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
    if memory or "can't allocate memory" in text or "out of memory" in text:
        return "out_of_memory"
    return "fatal" if isinstance(error, StudyError) else "error"


def set_up(payload: dict[str, Any]) -> tuple[StudyConfig, Any, Any]:
    """A worker's configuration, place and data.

    Raises:
        OtherDataError: the data here are not those that the study was started with.
    """
    from study.training.data.tokenised import StudyData
    from study.training.engine.ops import prepare_deepspeed
    from study.training.placement import Placement

    config = StudyConfig.from_dict(payload["config"])
    folder = StudyPaths(config.results_dir).data
    if config.results_url is not None:
        claim(config.results_dir, config.results_url)
        fetch_data(config.results_url, folder)
    data = StudyData.open(folder, payload["data"])
    device = ray.train.torch.get_device()
    prepare_deepspeed(device.type)
    context = ray.train.get_context()
    if device.type == "cpu":
        # Ray gives a worker its CPUs; torch would take every core of the machine.
        torch.set_num_threads(max(1, int(payload["cpus_per_worker"])))
    placement = Placement(device, context.get_world_rank(), context.get_world_size())
    return config, placement, data


class _logging_to:
    """Send this process's logging, and the traceback of what ends it, to the end of a file."""

    def __init__(self, path: Path, attempt: int) -> None:
        self._path, self._attempt = path, attempt

    def __enter__(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._handler = logging.FileHandler(self._path)
        self._handler.setFormatter(LogFormatter())
        root = logging.getLogger()
        root.addHandler(self._handler)
        root.setLevel(logging.INFO)
        root.info("process %d, attempt %d", os.getpid(), self._attempt)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        root = logging.getLogger()
        if error is not None:
            root.error("".join(traceback.format_exception(error)))
        root.removeHandler(self._handler)
        self._handler.close()
