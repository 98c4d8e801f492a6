"""Where a trained model goes: a folder here or storage behind a URL, never over something else."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from study.basics.errors import UserError
from study.basics.owned import CHECKPOINTS, REMAKEABLE, remove, remove_url
from study.basics.remote import RemoteFolder, is_remote
from study.basics.text_files import write_text
from study.protocol.records import TrialSpec
from study.reuse.model_card import model_card, record
from study.reuse.recipe import FinalRun, Recipe

RECORD = "study_training.json"


def is_trained(
    recipe: Recipe, place: str, dataset_size: int | None = None, seed: int | None = None
) -> bool:
    """Whether the model of this best configuration, and of a size and seed that were asked for, is
    there already.

    Raises:
        UserError: something else is.
    """
    if is_remote(place):
        remote = RemoteFolder(place)
        occupied, found = bool(remote.names()), remote.read(RECORD)
        if found is None and RemoteFolder(f"{place}.run").names():
            return False  # the run is there still: putting its model here was interrupted
    else:
        folder, path = Path(place), Path(place) / RECORD
        empty = folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir())
        occupied = os.path.lexists(folder) and not empty
        found = path.read_bytes() if path.is_file() else None
    if not occupied:
        return False
    with suppress(ValueError, KeyError, TypeError, RecursionError):
        record = json.loads(found or b"{}")
        spec = TrialSpec.from_dict(record["spec"])
        same_size = dataset_size in (None, spec.size)
        same_seed = seed is None or recipe.spec_at(spec.size, seed).seed == spec.seed
        if record["best_configuration"] == recipe.best.to_dict() and same_size and same_seed:
            return True
    raise UserError(f"--output {place}: something else is there. Remove it, or name another place.")


def put_in_place(recipe: Recipe, run: FinalRun, place: str) -> None:
    """Put card and record beside the weights, and the whole where it was asked for."""
    write_text(run.folder / RECORD, record(recipe, run))
    write_text(run.folder / "README.md", model_card(recipe, run))
    url = run.config.results_url
    if url is not None:
        # The record last: it says that the model is whole.
        for path in sorted(run.folder.iterdir(), key=lambda path: path.name == RECORD):
            RemoteFolder(place).upload(path, path.name, marked=path.name != RECORD)
        remove_url(url)
    else:
        target = Path(place)
        if target.is_dir():  # empty
            target.rmdir()
        os.replace(run.folder, target)
    # What is left of the run can be made again, but for its log.
    with suppress(OSError):
        remove(run.config.results_dir, (*REMAKEABLE, *CHECKPOINTS, "run.json", "model.json"))
