"""What models and data are, by content."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from study.basics import fingerprints
from study.basics.fingerprints import files_fingerprint, hub_id_of, is_content, model_fingerprint
from tests.helpers.models import write_model


def of(folder: Path) -> str:
    found = model_fingerprint(str(folder))
    assert found is not None
    return found


def test_a_model_is_the_same_in_another_folder_at_another_time(tmp_path: Path) -> None:
    first = write_model(tmp_path / "a")
    shutil.copytree(first, tmp_path / "b", copy_function=shutil.copyfile)
    assert of(first) == of(tmp_path / "b")
    assert is_content(of(first))


def test_how_weights_are_spread_and_who_saved_them_does_not_matter(tmp_path: Path) -> None:
    one = write_model(tmp_path / "a")
    other = write_model(tmp_path / "b", shards=3, _name_or_path="y", transformers_version="9")
    assert of(one) == of(other)


def test_other_weights_or_another_architecture_are_another_model(tmp_path: Path) -> None:
    models = [
        write_model(tmp_path / "a"),
        write_model(tmp_path / "b", seed=1),
        write_model(tmp_path / "c", rope_theta=5.0),
    ]
    assert len({of(model) for model in models}) == 3


def test_one_tensor_that_differs_is_noticed(tmp_path: Path) -> None:
    model = write_model(tmp_path / "a")
    before = of(model)
    path = model / "model-0.safetensors"
    content = bytearray(path.read_bytes())
    content[-1600] ^= 1  # in the middle of the last tensor of 3,200 bytes
    path.write_bytes(bytes(content))
    assert of(model) != before


@pytest.mark.parametrize("spoil", ["config.json", "model-0.safetensors"])
def test_what_is_no_model_has_no_fingerprint(tmp_path: Path, spoil: str) -> None:
    model = write_model(tmp_path / "a")
    (model / spoil).write_bytes(b"\xff" * 100)
    assert model_fingerprint(str(model)) is None
    (model / spoil).unlink()
    assert model_fingerprint(str(model)) is None


def test_a_hub_model_is_its_commit_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert model_fingerprint("owner/name") is None
    commit = "a1" * 20
    reference = tmp_path / "models--owner--name" / "refs" / "main"
    reference.parent.mkdir(parents=True)
    reference.write_text(commit)
    found = model_fingerprint("owner/name")
    assert found == f"hub:owner/name@{commit}" == model_fingerprint("owner/name", commit)
    assert hub_id_of(found) == "owner/name"
    assert not is_content(found)
    # Its folder inside the cache is the same model.
    snapshot = write_model(tmp_path / "models--owner--name" / "snapshots" / commit)
    assert of(snapshot) == found


def test_data_are_the_same_under_other_names_and_in_another_order(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a", "b", "c")]
    for path, text in zip(files, ("one", "two", "one"), strict=True):
        path.write_text(text)
    a, b, c = files
    assert files_fingerprint([a, b]) == files_fingerprint([b, c])
    assert files_fingerprint([a]) != files_fingerprint([b])
    assert files_fingerprint([a]) != files_fingerprint([a, c])


def test_a_large_file_is_read_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprints, "_WHOLE", 1000)
    monkeypatch.setattr(fingerprints, "_BLOCK", 10)
    path = tmp_path / "large"
    content = bytearray(np.random.default_rng(0).bytes(100_000))
    path.write_bytes(content)
    before = files_fingerprint([path])
    assert files_fingerprint([path]) == before
    content[-1] ^= 1  # the last block ends with the file
    path.write_bytes(content)
    assert files_fingerprint([path]) != before
    path.write_bytes(content[:-1])
    assert files_fingerprint([path]) != before
