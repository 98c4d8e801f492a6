"""The sections of `study.yaml`: the reference of its keys, their types and their defaults.

Rules that concern several keys are in `config_checks`, the files they name in `config_paths`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializeAsAny, WithJsonSchema, field_validator
from pydantic_core import PydanticCustomError

from study.basics.database_url import file_url
from study.basics.paths import StudyPaths
from study.basics.remote import is_remote, working_folder
from study.basics.section import PositiveInt, Section
from study.config.arms import ArmsConfig, read_arms
from study.config.space.read import SearchSpace, load_space

_PATHS = {"type": "array", "items": {"type": "string"}, "minItems": 1}
Files = str | Annotated[list[str], WithJsonSchema(_PATHS)]
"""Validated without the least length: an empty list has words of its own."""
Fraction = Annotated[float, Field(gt=0, lt=1)]
Beta = Annotated[float, Field(ge=0, lt=1)]
_BETA = {"type": "number", "minimum": 0, "exclusiveMaximum": 1}
# Draft 7 has no `prefixItems`.
_BETAS = {"type": "array", "items": _BETA, "minItems": 2, "maxItems": 2}
Task = Literal["causal-lm", "sequence-classification"]
Basis = Literal["device_seconds", "updates_per_parameter", "tokens"]
Tracker = Literal["tensorboard", "mlflow", "wandb"]


class ModelConfig(Section):
    path: str
    """Local folder or hub id of a Hugging Face model (safetensors)."""
    revision: str | None = None
    """Hub branch, tag or commit."""
    tokenizer: str | None = None
    """Folder or hub id when the tokenizer is not in `path`."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """How attention is computed; ``flash_attention_2`` needs its package."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third slower."""
    dropout: float | None = Field(default=None, ge=0, lt=1)
    """Overrides every dropout probability of the model; null keeps the model's own."""
    trust_remote_code: bool = False
    """Run code that comes with the model. Only for models you have read."""


class DataConfig(Section):
    train: Files
    """File, folder, glob, list of them, or hub id: JSONL, JSON, CSV, TSV, Parquet, Arrow (also a
    folder that `save_to_disk` wrote), plain text; text also packed as .gz, .bz2, .xz or .zst."""
    validation: Files | None = None
    """The same; null: `validation_size` is cut from train."""
    test: Files | None = None
    """The same; null: `test_size` is cut from train."""
    validation_size: PositiveInt | Fraction = 0.1
    """Examples, or share of the training file, to cut when no validation file is given."""
    test_size: PositiveInt | Fraction = 0.1
    """The same for the test split, which no choice ever sees."""
    max_train_samples: PositiveInt | None = None
    """Rows of train to go on with, drawn at random where there are more; null: 20000, or 16 times
    the largest dataset size where that is more."""
    subset: str | None = None
    """Configuration name of a hub dataset."""
    encoding: str | None = None
    """Of text files, e.g. ``cp1252``; null: UTF-8, or what a byte order mark says."""
    text: str | None = None
    """causal-lm: column with raw text, instead of `prompt` and `response`; the loss is on all of
    it. Classification: the text column."""
    prompt: str | None = None
    """Template over the columns, e.g. ``"{instruction}\\n"``; no loss on it."""
    response: str | None = None
    """Template over the columns, e.g. ``"{output}"``; the loss is on it."""
    messages: str | None = None
    """Column with chat messages (OpenAI's form or ShareGPT's), instead of `prompt` and `response`;
    the tokenizer's chat template is applied. Columns ``tools`` and ``system`` beside it belong to
    the conversation."""
    loss_on: Literal["last", "all"] = "last"
    """With `messages`: whether the loss is on the last assistant message or on all of them. A
    message's own `weight`, `train` or `loss`, 0 or 1, goes before it."""
    chat_date: str | None = Field(default=None, pattern=r"^\d{4}-\d{2}-\d{2}$")
    """With `messages`: what chat templates print as today's date; null: the day on which the study
    began."""
    label: str | None = None
    """Classification: label column (integers or names)."""
    retention: Files | None = "general"
    """Text the model should not forget. `general`: the text shipped with the package; a file or
    hub id; null: not measured."""
    retention_text: str = "text"
    """Text column of the retention data."""
    retention_size: PositiveInt = 200
    """At most so many retention examples."""


class SearchConfig(Section):
    space: str | dict[str, Any] = "default"
    """Name in search_spaces/, path of a YAML file, or a space written here."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """Replaces single domains of the space, e.g. ``learning_rate: {low: 1e-5}``."""
    trials: PositiveInt = 8
    """Search trials per arm, dataset size and replicate; the same in both arms."""
    replicates: PositiveInt = 5
    """Independent repetitions of the whole tuning procedure; a verdict needs 3."""
    sampler: Literal["sobol", "tpe", "random"] = "sobol"
    """What proposes configurations: a scrambled Sobol design that both arms share, Optuna's TPE,
    which learns from the trials that have ended, or chance."""
    pruner: Literal["none", "asha", "median"] = "none"
    """What stops search trials that look bad early; they never enter an estimate."""
    warm_start: list[str] = Field(default_factory=list)
    """Earlier studies (results folders, study files or URLs): up to half of the trials first try
    their winners, in both arms alike. They are run again; no earlier loss enters an estimate."""
    warm_start_bounds: Literal["keep", "narrow", "widen"] = "keep"
    """What earlier winners do to the ranges of the search. narrow: cut to what they span, with a
    quarter of the range on either side; widen: where one lies in the outer tenth, a quarter of
    the range is added beyond it. Ranges that both arms share stay the same in both."""


class ConfirmConfig(Section):
    seeds: int = Field(default=2, ge=0)
    """Fresh seeds each replicate's winner is retrained with; 0: no confirm runs, no test loss."""


class TrainingConfig(Section):
    epochs: float | None = Field(default=None, gt=0)
    """Passes over the subset (3 when neither epochs nor steps is given)."""
    steps: PositiveInt | None = None
    """Optimizer steps at every size, instead of epochs."""
    min_steps: PositiveInt = 100
    """Floor on optimizer steps, so that a small dataset is not starved into looking bad."""
    global_batch_size: PositiveInt = 16
    """Examples per optimizer step over all workers."""
    micro_batch_size_per_worker: PositiveInt | None = None
    """At most so many examples per forward pass on one worker; null: as many as have no more
    tokens than 8 of `sequence_length`. Long and short ones go through apart, so that at most 5 %
    of the tokens are padding."""
    sequence_length: PositiveInt = 512
    """Tokens per example; longer ones are cut."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """auto: bf16 on GPUs that have it, fp32 elsewhere."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or SGD with momentum."""
    betas: Annotated[tuple[Beta, Beta], Field(strict=False), WithJsonSchema(_BETAS)] = (0.9, 0.999)
    """AdamW's decay rates; the second one where the search space does not decide it."""
    epsilon: float = Field(default=1e-8, gt=0)
    """AdamW only."""
    momentum: float = Field(default=0.9, ge=0, lt=1)
    """SGD only."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Used where the search space does not decide it."""
    schedule: Literal["linear", "cosine", "constant"] = "cosine"
    """How the learning rate falls after the warmup."""
    evaluations: PositiveInt = 5
    """Validation evaluations per trial, evenly spaced, the last one at the end."""
    patience: PositiveInt | None = None
    """Search trials stop after so many evaluations without a new lowest validation loss."""
    checkpoint_share: float = Field(default=0.03, ge=0, le=1)
    """Share of a trial's time that checkpoints may take after its first one; an evaluation that
    would exceed it writes none. 0: no checkpoints, 1: one at every evaluation."""


class ZeroConfig(Section):
    stage: Annotated[int, Field(ge=0, le=3)] = 2
    """What the workers of a trial share out among them: nothing, optimizer state, gradients too,
    parameters too."""
    offload_optimizer: Literal["none", "cpu"] = "none"
    """Keep the optimizer state in host memory; stages 1 to 3."""
    offload_parameters: Literal["none", "cpu"] = "none"
    """Keep the parameters in host memory; stage 3 only."""
    overrides: dict[str, Any] = Field(default_factory=dict)
    """Raw DeepSpeed configuration, merged last; keys the study owns are refused."""


class ResourcesConfig(Section):
    workers_per_trial: PositiveInt = 1
    """Data-parallel workers that train one trial."""
    cpus_per_worker: float = Field(default=1, gt=0)
    """CPU cores that Ray sets aside for a worker; a share lets workers run side by side."""
    gpus_per_worker: Annotated[float, Field(ge=0, le=1)] | Literal["auto"] = "auto"
    """auto: 1 when the cluster has GPUs, else 0. A worker trains on one GPU, or shares one."""
    accelerator_type: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Ray's name of the GPUs to train on, e.g. ``H100``; null: the cluster's, if all are of one
    type. Trials never run on any other."""
    concurrent_trials: PositiveInt | Literal["auto"] = "auto"
    """auto: as many as the cluster's nodes hold, more or fewer as nodes join or leave."""
    wait_for_nodes_minutes: float = Field(default=30, ge=0)
    """How long to wait for nodes when those that are left hold no trial, before stopping."""
    network_interface: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Over which the workers of a trial on several nodes speak, e.g. ``eth0``; null: the one whose
    address Ray knows a node by."""
    reuse_workers: bool | Literal["auto"] = "auto"
    """Whether one trial after another runs on the same worker processes. auto: where starting
    them takes more than 5 % of a trial. Losses are the same either way."""


class PrefixCacheConfig(Section):
    enabled: Literal["auto", False] = "auto"
    """auto: keep hidden states below LIFT's trained blocks wherever that is exact and, by what the
    probe measured, pays."""
    folder: str | None = None
    """On a disk of each node; null: ``prefix_cache`` in `storage.results`, one per host."""
    max_gib: float = Field(default=50.0, gt=0)
    """Disk that hidden states may take on a node, in GiB."""
    min_free_gib: float = Field(default=5.0, ge=0)
    """Disk that is left free on a node, in GiB."""


class BudgetConfig(Section):
    device_hours: float | None = Field(default=None, gt=0)
    """GPU hours of all trials together, CPU workers' hours where there are no GPUs; null: no
    limit."""
    wall_hours: float | None = Field(default=None, gt=0)
    """Hours that `study run` may take, all its sessions together; null: no limit."""


class StorageConfig(Section):
    results: str | None = None
    """Folder for everything the study writes, local or a URL such as ``s3://bucket/study``; null:
    ``results/<name>`` beside study.yaml."""
    database: str | None = None
    """Optuna storage URL; null: SQLite inside `results`."""


class DecisionConfig(Section):
    dataset_size: PositiveInt | None = None
    """The size the user will fine-tune on; null: the largest tested."""
    rho: float = Field(default=0.01, gt=0)
    """The difference in loss that matters to you, in nats (0.01 is about 1 % perplexity)."""
    retention_rho: float = Field(default=0.01, gt=0)
    """The difference in forgetting that matters to you, in nats of the loss on general text."""
    memory_limit_gib: float | None = Field(default=None, gt=0)
    """Memory of one device of yours; an arm that needs more is ruled out. null: no limit."""


class StudyConfig(Section):
    """One declared comparison: a model, a task's data, arms, dataset sizes and a budget.

    `study.config.load.load_config` makes one from a file. Its paths are then absolute and its
    search space is written out in it, so that it means the same on any machine and at any later
    time.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Names the results folder and the Optuna studies."""
    seed: int = Field(default=0, ge=0)
    """Every subset, design and initialisation follows from it."""
    model: ModelConfig
    """The pre-trained model."""
    task: Task = "causal-lm"
    """Next-token prediction, or a classification head over labels."""
    data: DataConfig
    """The examples, what is read from them, and the splits."""
    dataset_sizes: list[PositiveInt] = Field(min_length=1)
    """Training examples to compare the arms at; ascending once loaded."""
    arms: SerializeAsAny[ArmsConfig]
    """The strategies to run: `full`, `lift`, or both."""
    comparison: Basis = "device_seconds"
    """What both arms have equal: the cost of a run as a probe measures it, the updates of every
    layer, or the tokens."""
    search: SearchConfig = SearchConfig()
    """How each arm is tuned."""
    confirm: ConfirmConfig = ConfirmConfig()
    """How often winners are retrained for their test loss."""
    training: TrainingConfig = TrainingConfig()
    """What is the same in every trial."""
    zero: ZeroConfig = ZeroConfig()
    """DeepSpeed ZeRO."""
    resources: ResourcesConfig = ResourcesConfig()
    """What a trial takes of the cluster."""
    prefix_cache: PrefixCacheConfig = PrefixCacheConfig()
    """Hidden states kept for LIFT."""
    budget: BudgetConfig = BudgetConfig()
    """What the study may take, and ends at; may be raised later."""
    storage: StorageConfig = StorageConfig()
    """Where results and records go."""
    decision: DecisionConfig = DecisionConfig()
    """What you want to know, and which differences matter to you."""
    tracking: list[Tracker] = Field(default_factory=list)
    """Where else to show the trials while they run; one or several. Servers and projects are named
    by each tool's own environment variables, such as ``MLFLOW_TRACKING_URI``."""

    @field_validator("dataset_sizes", mode="before")
    @classmethod
    def _one_size(cls, data: object) -> object:
        return [data] if isinstance(data, int) else data

    @field_validator("arms", mode="before")
    @classmethod
    def _arms(cls, data: object) -> ArmsConfig:
        return read_arms(data)

    @field_validator("tracking", mode="before")
    @classmethod
    def _one_tracker(cls, data: object) -> object:
        if data is None:  # every line of the list is commented out
            return []
        return [data] if isinstance(data, str) else data

    @field_validator("tracking")
    @classmethod
    def _each_once(cls, trackers: list[Tracker]) -> list[Tracker]:
        return list(dict.fromkeys(trackers))

    @field_validator("dataset_sizes")
    @classmethod
    def _ascending(cls, sizes: list[int]) -> list[int]:
        repeated = sorted({size for size in sizes if sizes.count(size) > 1})
        if repeated:
            listed = ", ".join(map(str, repeated))
            remedy = "List each size once; repetitions are `search.replicates`."
            raise PydanticCustomError("sizes", f"{listed} is listed twice.", {"remedy": remedy})
        return sorted(sizes)

    @property
    def results_dir(self) -> Path:
        """Local folder for everything the study writes; where `storage.results` is a URL, this
        machine's copy of what is there."""
        url = self.results_url
        if url is not None:
            return working_folder(url, self.name)
        return Path(self.storage.results or Path("results") / self.name)

    @property
    def results_url(self) -> str | None:
        """Where the results go if not into a local folder."""
        results = self.storage.results
        return results.rstrip("/") if results is not None and is_remote(results) else None

    @property
    def database_url(self) -> str:
        """Optuna storage URL."""
        return self.storage.database or file_url(StudyPaths(self.results_dir.absolute()).database)

    def at(self, storage: StorageConfig) -> Self:
        """The same study with its files where its reader was pointed to: what a record says of them
        may have been true elsewhere, or never."""
        return self.model_copy(update={"storage": storage})

    @property
    def compares(self) -> bool:
        """Whether it can choose between the arms; else it is a plain sweep, which ranks
        configurations: of one arm, or without confirm runs."""
        return len(self.arms.names) > 1 and self.confirm.seeds > 0

    def space(self) -> SearchSpace:
        """The search space with the study's overrides.

        Raises:
            ConfigError: a configuration that did not come from `load_config` and is at fault.
        """
        space = load_space(self.search.space, arms=())
        return space.with_overrides(self.search.overrides)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` reads them back."""
        return self.model_dump(mode="json")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The configuration that `to_dict` wrote; files are not looked at again.

        Raises:
            pydantic.ValidationError: the data is of another version of the package.
        """
        return cls.model_validate(data)
