"""What a study puts into a cluster file, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from study.errors import ConfigError, UserError
from study.launch import render, render_cluster_file, targets, values
from tests.helpers.cluster_studies import SHAPES, STUDY, write_study

GPUS: dict[str, Any] = {"workers_per_trial": 8, "cpus_per_worker": 4}


def manifest(folder: Path, **options: Any) -> dict[str, Any]:
    rendered = render_cluster_file("kuberay", write_study(folder, GPUS), **options)
    return {document["kind"]: document for document in yaml.safe_load_all(rendered.text)}


def test_the_manifest_carries_the_study_word_for_word(tmp_path: Path) -> None:
    path = write_study(tmp_path, GPUS)
    path.write_text("# a comment: with 'quotes'\n\n" + path.read_text() + "seed: 7")
    text = render_cluster_file("kuberay", path).text
    found = next(yaml.safe_load_all(text))["data"]["study.yaml"]
    assert found.strip() == path.read_text().strip()


def test_names_become_such_as_kubernetes_allows(tmp_path: Path) -> None:
    for name, expected in (
        ("Big_Study.1", "big-study-1"),
        ("7b", "study-7b"),
        ("x" * 64, "x" * 47),
    ):
        path = write_study(tmp_path, GPUS, name=name)
        documents = list(yaml.safe_load_all(render_cluster_file("kuberay", path).text))
        assert {document["metadata"]["name"] for document in documents} == {expected}


def test_options_and_settings_reach_every_place_they_concern(tmp_path: Path) -> None:
    found = manifest(
        tmp_path,
        memory_gib=100,
        accelerator="NVIDIA-A100-SXM4-80GB",
        settings={"image": "mine:1", "namespace": "research", "claim": "disk"},
    )
    assert {document["metadata"]["namespace"] for document in found.values()} == {"research"}
    cluster = found["RayJob"]["spec"]["rayClusterSpec"]
    head = cluster["headGroupSpec"]["template"]["spec"]
    worker = cluster["workerGroupSpecs"][0]["template"]["spec"]
    for pod in (head, worker):
        assert pod["containers"][0]["image"] == "mine:1"
        assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "disk"}
    assert worker["containers"][0]["resources"]["limits"]["memory"] == "100Gi"
    assert worker["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}


@pytest.mark.parametrize(
    ("hours", "limit"), [(None, "24:00:00"), (2, "2:30:00"), (0.51, "1:01:00"), (72, "72:30:00")]
)
def test_the_time_limit_is_the_studys_own_and_half_an_hour(
    hours: float | None, limit: str, tmp_path: Path
) -> None:
    path = write_study(tmp_path, GPUS, budget={"wall_hours": hours} if hours else {})
    assert f"#SBATCH --time={limit} " in render_cluster_file("slurm", path).text


def test_the_batch_script_asks_for_what_the_study_needs(tmp_path: Path) -> None:
    path = write_study(tmp_path, GPUS)
    lines = render_cluster_file(
        "slurm", path, nodes=2, accelerator="a100", settings={"partition": "fast"}
    ).text.splitlines()
    options = [line.split("  # <--")[0] for line in lines if line.startswith("#SBATCH")]
    for option in (
        "job-name=Big_Study.1", "nodes=2", "cpus-per-task=33", "gpus-per-node=a100:8", "mem=256G",
        "partition=fast",
    ):  # fmt: skip
        assert f"#SBATCH --{option}" in options
    cpu_only = render_cluster_file("slurm", write_study(tmp_path, SHAPES["cpu-demo"][0])).text
    assert "\n#SBATCH --gpus-per-node" not in cpu_only


@pytest.mark.parametrize(
    ("target", "options", "machine"),
    [
        ("aws", {}, "g6.48xlarge"),
        ("aws", {"gpus_per_node": 4}, "g6.12xlarge"),
        ("gcp", {"gpus_per_node": 2}, "g2-standard-24"),
        ("aws", {"gpus_per_node": 0}, "m7i.16xlarge"),
        ("aws", {"gpus_per_node": 16, "settings": {"machine": "p9.huge"}}, "p9.huge"),
    ],
)
def test_a_cloud_machine_is_the_smallest_that_holds_the_workers(
    target: str, options: dict[str, Any], machine: str, tmp_path: Path
) -> None:
    text = render_cluster_file(target, write_study(tmp_path, GPUS), **options).text
    config = yaml.safe_load(text)["available_node_types"]["worker"]["node_config"]
    assert machine in (config.get("InstanceType"), config.get("machineType"))


def test_nodes_install_the_checkout_this_program_runs_from(tmp_path: Path) -> None:
    mounts = yaml.safe_load(render_cluster_file("local", write_study(tmp_path, GPUS)).text)
    source = Path(mounts["file_mounts"]["~/finetune-study"])
    assert (source / "constraints.txt").is_file() and (source / "study").is_dir()


def test_what_is_still_the_examples_is_named(tmp_path: Path) -> None:
    path = write_study(tmp_path, GPUS)
    rendered = render_cluster_file("local", path, settings={"head_ip": "10.1.1.1"})
    assert {key for _, key in rendered.left} == {"worker_ips", "user", "key"}
    lines = rendered.text.splitlines()
    assert all(f"# <-- {key}" in lines[number - 1] for number, key in rendered.left)


def test_the_paths_that_nodes_must_see_are_those_on_the_shared_volume(tmp_path: Path) -> None:
    path = write_study(tmp_path, GPUS, data={"train": ["a.jsonl", "/data/b.jsonl"], "text": "t"})
    assert render_cluster_file("kuberay", path).paths == (
        "/shared/big-study-1/base-model", "/shared/big-study-1/a.jsonl", "/data/b.jsonl",
    )  # fmt: skip
    assert str(tmp_path / "a.jsonl") in render_cluster_file("slurm", path).paths


def test_a_header_names_the_file_that_was_written(tmp_path: Path) -> None:
    text = render_cluster_file("slurm", write_study(tmp_path, GPUS), file_name="job.sh").text
    assert "#   sbatch job.sh\n" in text
    assert "cluster/slurm.sh" not in text


@pytest.mark.parametrize("target", ["kuberay", "slurm", "aws", "gcp", "local"])
def test_wrong_input_is_one_message_and_exit_code_2(target: str, tmp_path: Path) -> None:
    path = write_study(tmp_path, GPUS)
    for options, message in (
        ({"settings": {"imagee": "x"}}, "`imagee` is no value of this file"),
        ({"nodes": 1, "gpus_per_node": 1}, "--nodes is 1"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            render_cluster_file(target, path, **options)
        assert caught.value.exit_code == 2
    path.write_text(yaml.safe_dump(STUDY | {"resources": {"workers_per_trail": 2}}))
    with pytest.raises(ConfigError, match="workers_per_trail"):
        render_cluster_file(target, path)
    with pytest.raises(UserError, match="there is no such file"):
        render_cluster_file(target, tmp_path / "none.yaml")


def test_an_unknown_target_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Did you mean `slurm`"):
        render_cluster_file("slurn", write_study(tmp_path, GPUS))


def test_a_password_does_not_go_into_a_manifest(tmp_path: Path) -> None:
    url = "postgresql://me:secret@host/study"
    path = write_study(tmp_path, GPUS, storage={"database": url})
    with pytest.raises(UserError, match="study-secrets") as caught:
        render_cluster_file("kuberay", path)
    assert "secret@" not in str(caught.value)
    path = write_study(tmp_path, GPUS, storage={"database": url.replace(":secret", "")})
    assert "me@host" in render_cluster_file("kuberay", path).text


def test_a_machine_type_that_is_not_known_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--set machine=TYPE"):
        render_cluster_file("aws", write_study(tmp_path, GPUS), gpus_per_node=16)


def test_an_installed_package_asks_for_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in site-packages: the files of cluster/ are inside the package, and nothing is beside it.
    package = tmp_path / "site-packages" / "study"
    (package / "launch").mkdir(parents=True)
    (package / "cluster").symlink_to(targets.cluster_folder())
    for module in (values, targets):
        monkeypatch.setattr(module, "__file__", str(package / "launch" / "module.py"))
    assert render.cluster_folder() == package / "cluster"
    path = write_study(tmp_path, GPUS)
    with pytest.raises(UserError, match="--set source=FOLDER"):
        render_cluster_file("aws", path)
    assert "a/b" in render_cluster_file("aws", path, settings={"source": "a/b"}).text
