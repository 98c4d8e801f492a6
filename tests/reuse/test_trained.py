"""Where `study train` puts a model: a folder, or storage behind a URL, and never over another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from study.basics.errors import UserError
from study.basics.paths import StudyPaths
from study.basics.remote import RemoteFolder, is_remote
from study.reuse.trained import RECORD, is_trained, put_in_place
from tests.helpers.final_runs import finished
from tests.helpers.object_store import BUCKET, s3_environment, s3_server


@pytest.fixture(params=["folder", "s3", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "folder":
        yield str(tmp_path / "my-model")
    elif request.param == "file":
        yield f"{tmp_path.as_uri()}/my-model"
    else:
        with s3_server() as port, pytest.MonkeyPatch.context() as patch:
            for name, value in s3_environment(port).items():
                patch.setenv(name, value)
            yield f"s3://{BUCKET}/my-model"


def read(place: str, name: str) -> bytes | None:
    return RemoteFolder(place).read(name) if is_remote(place) else (Path(place) / name).read_bytes()


def test_a_trained_model_is_put_there_and_known_again(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDY_CACHE", str(tmp_path / "cache"))
    recipe, run = finished()
    assert not is_trained(recipe, place)
    storage = run.config.storage.model_copy(update={"results": f"{place}.run"})
    run = replace(run, config=run.config.model_copy(update={"storage": storage}))
    paths = StudyPaths(run.config.results_dir)
    run = replace(run, folder=paths.model)
    for folder in (paths.model, paths.data, paths.root / "logs"):
        folder.mkdir(parents=True)
    (paths.model / "model.safetensors").write_bytes(b"weights")
    if is_remote(place):  # the workers' own records of the run
        RemoteFolder(f"{place}.run").write("checkpoints/one", b"state")

    put_in_place(recipe, run, place)

    assert read(place, "model.safetensors") == b"weights"
    assert json.loads(read(place, RECORD) or b"")["best_configuration"] == recipe.best.to_dict()
    assert b"model-index" in (read(place, "README.md") or b"")
    assert not paths.data.exists() and (paths.root / "logs").is_dir(), "the log stays"
    if is_remote(place):
        assert RemoteFolder(f"{place}.run").read("checkpoints/one") is None
    assert is_trained(recipe, place)
    for asked in ({"dataset_size": run.spec.size + 1}, {"seed": 7}):
        with pytest.raises(UserError, match="something else is there"):
            is_trained(recipe, place, **asked)
    assert is_trained(recipe, place, dataset_size=run.spec.size)
    other = replace(recipe, best=recipe.best.model_copy(update={"arm": "full"}))
    with pytest.raises(UserError, match="something else is there"):
        is_trained(other, place)
