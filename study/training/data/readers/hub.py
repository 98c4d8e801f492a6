"""Datasets of the Hugging Face hub; `datasets` is imported only here, and only for one."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from study.basics.errors import DataError
from study.config.sources import Source
from study.training.data.readers.arrow_rows import DatasetRows

if TYPE_CHECKING:
    from datasets import Dataset


def read_hub(source: Source, subset: str | None) -> DatasetRows:
    """The first split of a hub dataset that fits.

    Raises:
        DataError: it cannot be reached or read.
    """
    with _quiet_datasets():
        return DatasetRows(_load(source, subset), source.name)


def _load(source: Source, subset: str | None) -> Dataset:
    import datasets

    last: Exception | None = None
    for split in source.hub_splits:
        try:
            return datasets.load_dataset(source.hub, subset, split=split)
        except ConnectionError as error:
            raise DataError(
                f"{source.key}: {source.hub} is neither a local path nor reachable on the "
                "Hugging Face hub. Check the spelling, or give the path of a local file."
            ) from error
        except Exception as error:
            # The hub client raises a dozen unrelated classes: gated, removed, broken metadata.
            last = error
            if not str(error).startswith("Unknown split"):
                break
    first_line = str(last).strip().split("\n")[0]
    if subset is None and "onfig name is missing" in str(last):
        first_line = " ".join(str(last).split())[:200] + " Set data.subset."
    raise DataError(
        f"{source.key}: the hub dataset {source.hub} (data.subset: {subset}, split "
        f"{' or '.join(source.hub_splits)}) cannot be read: {first_line}"
    ) from last


@contextlib.contextmanager
def _quiet_datasets() -> Iterator[None]:
    """No progress bars and no log lines: failures are raised, and told in one line."""
    import datasets

    level = datasets.utils.logging.get_verbosity()
    bars = not datasets.are_progress_bars_disabled()
    datasets.utils.logging.set_verbosity(logging.CRITICAL)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        datasets.utils.logging.set_verbosity(level)
        if bars:
            datasets.enable_progress_bars()
