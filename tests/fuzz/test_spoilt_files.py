"""Spoilt study files and data files: each gets one message and exit code 2, or a plan, soon.

`mutants.py` spoils good files, the same for the same seed; a fault names its seed.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from study.reuse.recipe import read_recipe
from tests.fuzz.mutants import STUDY_FILES, spoilt, ways_for
from tests.helpers.answers import SPACE, STUDIES, answered, command, write_data_files, write_project
from tests.tiers import thinned

BEST = """\
format: 1
study: {name: small, seed: 0, comparison: tokens}
arm: lift
dataset_size: 16
strategy: {group_size: 1}
hyperparameters: {learning_rate: 1.0e-4, warmup_ratio: 0.1, max_grad_norm: 1.0}
run: {steps: 100, epochs: 2.5}
model: {path: ./model, fingerprint: "folder-1:00", parameters: 1000, num_blocks: 4}
task: causal-lm
data: {train: ./train.jsonl, prompt: "{question}", response: "{answer}"}
training: {global_batch_size: 8}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project of good files, some folders deep, and the home of its commands."""
    place = tmp_path_factory.mktemp("fuzz") / "a" / "b"
    place.mkdir(parents=True)
    write_project(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setenv("HOME", str(place))
        patch.setenv("COLUMNS", "80")
        patch.setenv("TMPDIR", str(place))
        yield place


def test_the_good_files_are_good(folder: Path) -> None:
    for name in STUDIES:
        assert command("plan", name).code == 0
    for file in write_data_files(folder):
        assert command("plan", f"{file}.yaml").code == 0


@pytest.mark.parametrize(
    ("first", "count"),
    thinned(
        [(0, 50), *((first, 1000) for first in range(1000, 11_000, 1000))],
        lambda first, count: first == 0,
    ),
)
def test_a_spoilt_study_file_gets_one_message_soon(first: int, count: int, folder: Path) -> None:
    faults = {}
    for seed in range(first, first + count):
        rng = random.Random(seed)
        spoil_space = rng.random() < 0.15
        name = "full.yaml" if spoil_space else rng.choice(list(STUDIES))
        text, space = STUDIES[name].encode(), SPACE.encode()
        if spoil_space:
            space = spoilt(rng, space)
        else:
            text = spoilt(rng, text)
        (folder / "space.yaml").write_bytes(space)
        (folder / "study.yaml").write_bytes(text)
        if (fault := command("plan").fault) is not None:
            faults[seed] = fault
        if seed % 100 == 0:
            for made in ("results", "out"):
                shutil.rmtree(folder / made, ignore_errors=True)
    assert not faults


@pytest.mark.parametrize(
    ("first", "count"), thinned([(0, 32), (1000, 300)], lambda first, count: first == 0)
)
def test_a_spoilt_data_file_gets_one_message_soon(first: int, count: int, folder: Path) -> None:
    good, faults = write_data_files(folder), {}
    for seed in range(first, first + count):
        rng, file = random.Random(seed), list(good)[seed % len(good)]
        (folder / file).write_bytes(spoilt(rng, good[file], ways_for(file)))
        if (fault := command("plan", f"{file}.yaml").fault) is not None:
            faults[seed] = file, fault
        (folder / file).write_bytes(good[file])
    assert not faults


@pytest.mark.parametrize(
    ("first", "count"), thinned([(0, 80), (1000, 1000)], lambda first, count: first == 0)
)
def test_a_spoilt_best_configuration_is_read_or_refused(
    first: int, count: int, folder: Path
) -> None:
    from study.cli.failures import tell

    def read() -> None:
        try:
            read_recipe(folder / "best.yaml")
        except BaseException as error:  # as `study train` tells it
            raise SystemExit(tell(error)) from None

    faults = {}
    for seed in range(first, first + count):
        text = spoilt(random.Random(seed), BEST.encode(), STUDY_FILES)
        (folder / "best.yaml").write_bytes(text if seed else BEST.encode())
        answer = answered(read, guarded=True)
        assert seed or answer.code == 0, answer.text
        if answer.fault is not None:
            faults[seed] = answer.fault
    assert not faults
