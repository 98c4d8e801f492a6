"""The files and the database that a study file names: made absolute, and looked at.

Nothing here imports torch or opens a data file: it finds what can be found in a moment. It asks
`os.path` whether files exist, since `Path.exists` raises where a folder above is not readable.
"""

from __future__ import annotations

import glob
import json
import os
from collections.abc import Iterator
from pathlib import Path

from study.basics.database_url import DatabaseUrlError, parse_database_url, sqlite_path
from study.basics.errors import Fault
from study.basics.paths import StudyPaths, is_hub_id
from study.basics.remote import is_remote
from study.basics.surroundings import expanded, unknown_in
from study.basics.urls import has_password, without_password
from study.basics.yaml_source import did_you_mean
from study.config.data_formats import FORMATS, data_format
from study.config.models import DataConfig, StudyConfig

GENERAL_TEXT = "general"
_DATA_FIELDS = ("train", "validation", "test", "retention")
NAMING_FILES = (
    ("model", ("path", "tokenizer")),
    ("data", _DATA_FIELDS),
    ("search", ("warm_start",)),
)
"""The settings that name the user's files or folders, by section."""
_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt",
    "spiece.model", "sentencepiece.bpe.model",
)  # fmt: skip


def resolve_paths(config: StudyConfig, base_dir: Path) -> StudyConfig:
    """`config` with its relative local paths made absolute against `base_dir`."""
    model, data, storage = config.model, config.data, config.storage
    tokenizer = model.tokenizer and _absolute_model(model.tokenizer, base_dir)
    results = expanded(storage.results) if storage.results else f"results/{config.name}"
    cache = config.prefix_cache
    earlier = [s if "://" in s else str(_local(s, base_dir)) for s in config.search.warm_start]
    cache_folder = cache.folder and str(_local(cache.folder, base_dir))
    return config.model_copy(
        update={
            "model": model.model_copy(
                update={"path": _absolute_model(model.path, base_dir), "tokenizer": tokenizer}
            ),
            "data": data.model_copy(
                update={name: _absolute_data(data, name, base_dir) for name in _DATA_FIELDS}
            ),
            "search": config.search.model_copy(update={"warm_start": earlier}),
            "prefix_cache": cache.model_copy(update={"folder": cache_folder}),
            "storage": storage.model_copy(
                update={
                    "results": results if is_remote(results) else str(_local(results, base_dir)),
                    "database": _absolute_database(storage.database, base_dir),
                }
            ),
        }
    )


def unknown_names(config: StudyConfig) -> Iterator[Fault]:
    """Environment variables and home folders in the paths of `config`, as they were written, that
    there are not."""
    for path, value in _written_paths(config):
        if rule := unknown_in(value):
            yield Fault(path, None, value, rule, "Set it, or write the path out.")


def _written_paths(config: StudyConfig) -> Iterator[tuple[str, str]]:
    for section, names in NAMING_FILES:
        for name in names:
            yield from _each(f"{section}.{name}", getattr(getattr(config, section), name))
    if isinstance(config.search.space, str):
        yield "search.space", config.search.space
    yield from _each("prefix_cache.folder", config.prefix_cache.folder)
    yield from _each("storage.results", config.storage.results)
    file = _database_file(config.storage.database)
    if file is not None:
        yield "storage.database", str(file)


def _each(path: str, value: str | list[str] | None) -> Iterator[tuple[str, str]]:
    """What a setting holds: a text, several, or none."""
    if isinstance(value, list):
        yield from ((f"{path}.{index}", item) for index, item in enumerate(value))
    elif value is not None:
        yield path, value


def check_paths(config: StudyConfig) -> list[Fault]:
    """What is wrong with the local files that a resolved `config` names; hub ids pass."""
    faults = list(_model_faults("model.path", config.model.path))
    if config.model.tokenizer is not None:
        faults += _tokenizer_faults("model.tokenizer", config.model.tokenizer)
    elif not faults:
        faults += _tokenizer_faults("model.path", config.model.path)
    for name in _DATA_FIELDS:
        value = getattr(config.data, name)
        if value == []:
            remedy = "Name at least one file."
            faults.append(Fault(f"data.{name}", None, value, "the list is empty.", remedy))
        elif name != "retention" or value != GENERAL_TEXT:
            for path, item in _each(f"data.{name}", value):
                faults += _data_faults(path, item)
    faults += _earlier_faults(config)
    faults += _results_faults(config.storage.results)
    faults += _blocked_faults("storage.results", config.results_dir)
    if config.prefix_cache.folder is not None:
        faults += _blocked_faults("prefix_cache.folder", Path(config.prefix_cache.folder))
    return faults


def _earlier_faults(config: StudyConfig) -> Iterator[Fault]:
    """Earlier studies that are not there. One that has begun needs them no more: what they said is
    on record with it."""
    if config.storage.database is not None or StudyPaths(config.results_dir).database.is_file():
        return
    for index, source in enumerate(config.search.warm_start):
        if "://" not in source and not os.path.exists(source):
            rule, remedy = "there is no such study.", "Name its results folder or study file."
            yield Fault(f"search.warm_start.{index}", None, source, rule, remedy)


def _results_faults(results: str | None) -> Iterator[Fault]:
    """What is wrong with a URL; credentials in one are not repeated."""
    if results is None or not is_remote(results):
        return
    scheme, _, rest = results.partition("://")
    path, remedy = "storage.results", "E.g. `s3://bucket/study`, `gs://bucket/study` or a folder."
    if "@" in rest.partition("/")[0] or has_password(results):
        rule = "no credentials in a study file."
        remedy = "Leave them out of the URL; they are taken from the environment."
        shown = without_password(f"{scheme}://***@{rest.rpartition('@')[2]}")
        yield Fault(path, None, shown, rule, remedy)
        return
    if not rest.strip("/"):
        yield Fault(path, None, results, "the URL names no bucket or folder.", remedy)
    if scheme not in ("s3", "gs", "gcs", "file"):
        import fsspec  # for the few who use another filesystem

        if scheme not in fsspec.available_protocols():
            rule = f"no filesystem is called `{scheme}`."
            yield Fault(path, None, results, rule, remedy)


def _blocked_faults(path: str, folder: Path) -> Iterator[Fault]:
    blocked = next((p for p in (folder, *folder.parents) if os.path.isfile(p)), None)
    if blocked is not None:
        remedy = "Name a folder; it need not exist."
        rule = f"{blocked} is a file, so nothing can be written below it."
        yield Fault(path, None, str(folder), rule, remedy)


def database_faults(database: str | None) -> Iterator[Fault]:
    """What is wrong with an Optuna storage URL. Passwords are not repeated."""
    try:
        if database is not None:
            parse_database_url(database)
    except DatabaseUrlError as error:
        yield Fault("storage.database", None, error.shown, error.rule, error.remedy)


def _absolute_model(path: str, base_dir: Path) -> str:
    path = expanded(path)
    return path if is_hub_id(path, base_dir) else str(_local(path, base_dir))


def _absolute_data(data: DataConfig, name: str, base_dir: Path) -> str | list[str] | None:
    value: str | list[str] | None = getattr(data, name)
    if value is None or (name == "retention" and value == GENERAL_TEXT):
        return value
    if isinstance(value, list):
        return [_absolute_file(item, base_dir) for item in value]
    return _absolute_file(value, base_dir)


def _absolute_file(path: str, base_dir: Path) -> str:
    path = expanded(path)
    if is_hub_id(path, base_dir) and not data_format(path):
        return path
    local = _local(path, base_dir)
    if glob.has_magic(path) and not os.path.exists(local):
        # Only what was written is a pattern, not the folder that it stands in: `run [v2]`.
        local = _local(path, Path(glob.escape(str(base_dir))))
    return str(local)


def _local(path: str, base_dir: Path) -> Path:
    return Path(os.path.abspath(base_dir / expanded(path)))


def _absolute_database(database: str | None, base_dir: Path) -> str | None:
    """SQLite's relative paths are relative to the working directory otherwise."""
    file = _database_file(database)
    if database is None or file is None:
        return database
    path = _local(str(file), base_dir)
    if path == file:
        return database
    url = parse_database_url(database).set(database=str(path))
    return url.render_as_string(hide_password=False)


def _database_file(database: str | None) -> Path | None:
    """The file of an SQLite URL."""
    try:
        return None if database is None else sqlite_path(database)
    except DatabaseUrlError:  # a fault, which is told elsewhere
        return None


def _model_faults(path: str, value: str) -> Iterator[Fault]:
    folder = Path(value)
    if not folder.is_absolute():
        return
    suffixes = {Path(name).suffix for name in _names_in(folder)}
    if not os.path.exists(folder):
        remedy = f"{_near_name(folder)}Or give a hub id such as `Qwen/Qwen3-0.6B`."
        yield Fault(path, None, value, "there is no such model folder.", remedy)
    elif not os.path.isdir(folder):
        remedy = "Give the folder with config.json and the weights."
        yield Fault(path, None, value, "must be a folder, not a file.", remedy)
    elif not os.path.isfile(folder / "config.json"):
        remedy = "Save the model with `model.save_pretrained(folder)`."
        if os.path.isfile(folder / "adapter_config.json"):
            remedy = "This is an adapter: merge it into its base model first."
        yield Fault(path, None, value, "the folder has no config.json.", remedy)
    elif ".safetensors" not in suffixes and ".bin" in suffixes:
        remedy = "Convert them: load with `from_pretrained`, then `save_pretrained(folder)`."
        rule = "the folder has weights as .bin but none as .safetensors."
        yield Fault(path, None, value, rule, remedy)
    elif ".safetensors" not in suffixes:
        remedy = "Copy or download them there, or save with `model.save_pretrained(folder)`."
        yield Fault(path, None, value, "the folder has no weights (*.safetensors).", remedy)
    else:
        yield from _shard_faults(path, folder)


def _shard_faults(path: str, folder: Path) -> Iterator[Fault]:
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_text("utf-8"))
        shards = set(index["weight_map"].values())
    except FileNotFoundError:
        return
    except (ValueError, KeyError, TypeError, AttributeError, OSError, RecursionError):
        rule = "model.safetensors.index.json cannot be read."
        yield Fault(path, None, str(folder), rule, "Download or save the model again.")
        return
    missing = sorted(shard for shard in shards if not os.path.isfile(folder / shard))
    if missing:
        rule = f"{len(missing)} of {len(shards)} weight files are missing, e.g. {missing[0]}."
        yield Fault(path, None, str(folder), rule, "Download the model again.")


def _tokenizer_faults(path: str, value: str) -> Iterator[Fault]:
    folder = Path(value)
    if not folder.is_absolute() or any(os.path.isfile(folder / name) for name in _TOKENIZER_FILES):
        return
    if not os.path.isdir(folder):
        remedy = "Give a folder that exists, or a hub id."
        yield Fault(path, None, value, "there is no such tokenizer folder.", remedy)
    else:
        remedy = "Set `model.tokenizer` to a folder or hub id that has one."
        yield Fault(path, None, value, "the folder has no tokenizer.", remedy)


def _data_faults(path: str, value: str) -> Iterator[Fault]:
    place = Path(value)
    if not place.is_absolute():
        return
    if os.path.isdir(place):
        files = [str(place / name) for name in _names_in(place) if data_format(name)]
    elif os.path.isfile(place):
        files = [value]
    else:
        files = glob.glob(value, recursive=True)
    known = f"Known formats: {', '.join(FORMATS)}."
    if not files and os.path.isdir(place):
        yield Fault(path, None, None, "the folder holds no data file.", known)
    elif not files:
        near = _near_name(place) or "Check the path. "
        remedy = f"{near}Relative paths are relative to the study file's folder."
        yield Fault(path, None, None, f"no file matches {value}.", remedy)
    for file in map(Path, files):
        if not data_format(file.name):
            yield Fault(path, None, None, f"{file.name} has no known data format.", known)
        elif os.path.isfile(file) and os.path.getsize(file) == 0:
            remedy = "Write examples into it, or take it out."
            yield Fault(path, None, None, f"{file.name} is empty.", remedy)


def _near_name(missing: Path) -> str:
    """A sentence that names the entry of the same folder that was probably meant, or nothing."""
    near = did_you_mean(missing.name, _names_in(missing.parent))
    return f"Did you mean `{missing.parent / near}`? " if near else ""


def _names_in(folder: Path) -> list[str]:
    """Names in a folder; none if there is no such folder or it is not readable."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
