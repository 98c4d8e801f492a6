"""What a study puts into a cluster file, and what is refused."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from study.basics import shipped
from study.basics.errors import ConfigError, UserError
from study.launch import render_cluster_file
from study.launch.cluster_file import render, targets
from tests.helpers.cluster_studies import SHAPES, STUDY, write_study

GPUS: dict[str, Any] = {"workers_per_trial": 8, "cpus_per_worker": 4}


def manifest(folder: Path, search: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    path = write_study(folder, GPUS, search=search or {})
    rendered = render_cluster_file("kuberay", path, **options)
    return {document["kind"]: document for document in yaml.safe_load_all(rendered.text)}


BOM = "\ufeff"


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "# a comment: with 'quotes'\n\n" + text,
        lambda text: text.rstrip("\n"),
        lambda text: text + "\n\n",
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "".join(f"  {line}\n" for line in text.splitlines()),
        lambda text: text + 'tracking: []  # trailing blanks   \n# tab\tand \xa0\n',
        lambda text: text.replace("text: text", 'prompt: "{text}\u2028: "\n  response: "{a} "'),
        lambda text: text.replace("text: text", 'prompt: "{text} \U0001f600"\n  response: "{a}"'),
        lambda text: BOM + text,
    ],
    ids=[
        "comment", "no final newline", "blank lines", "CRLF", "indented", "blanks", "U+2028",
        "emoji", "byte order mark",
    ],
)  # fmt: skip
def test_the_manifest_carries_the_study_byte_for_byte(
    change: Callable[[str], str], tmp_path: Path
) -> None:
    path = write_study(tmp_path, GPUS)
    path.write_bytes(change(path.read_text()).encode())
    text = render_cluster_file("kuberay", path).text
    found = next(yaml.safe_load_all(text))["data"]["study.yaml"]
    assert found.encode() == path.read_bytes()


def laid_out(config_map: dict[str, Any], volume: dict[str, Any], folder: Path) -> None:
    """A config map's volume as Kubernetes makes it: files in a dated folder, and links to them."""
    dated = folder / "..2026_01_01"
    for item in volume["configMap"]["items"]:
        place = dated / item["path"]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(config_map["data"][item["key"]].encode())
    (folder / "..data").symlink_to(dated.name)
    for first in {Path(item["path"]).parts[0] for item in volume["configMap"]["items"]}:
        (folder / first).symlink_to(f"..data/{first}")


def test_a_search_space_of_ones_own_is_where_the_study_looks_for_it(tmp_path: Path) -> None:
    space = "shared:\n  learning_rate: 1.0e-3   \n  warmup_ratio: 0.1\n  max_grad_norm: 1.0"
    (tmp_path / "spaces").mkdir()
    (tmp_path / "spaces" / "mine.yaml").write_text(space)
    found = manifest(tmp_path, search={"space": "./spaces/mine.yaml"})
    cluster = found["RayJob"]["spec"]["rayClusterSpec"]
    pod = cluster["headGroupSpec"]["template"]["spec"]
    laid_out(found["ConfigMap"], pod["volumes"][1], tmp_path / "etc")
    program = tmp_path / "bin" / "study"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    script = found["ConfigMap"]["data"]["run.sh"].replace("/etc/study", str(tmp_path / "etc"))
    there = tmp_path / "shared" / "study"
    for _ in range(2):  # also when the job is started again
        ran = subprocess.run(
            ["sh", "-c", script],
            env={"STUDY_FOLDER": str(there), "PATH": f"{program.parent}:{os.environ['PATH']}"},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert ran.stdout == f"run {there}/study.yaml\n"
    assert (there / "spaces" / "mine.yaml").read_text() == space
    assert (there / "study.yaml").read_bytes() == (tmp_path / "study.yaml").read_bytes()


def test_a_search_space_that_cannot_travel_is_refused_or_named(tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("shared: {learning_rate: 1.0e-3, warmup_ratio: 0.1, max_grad_norm: 1.0}\n")
    (tmp_path / "here").mkdir()
    with pytest.raises(UserError, match=r"search\.space is \.\./space\.yaml"):
        manifest(tmp_path / "here", search={"space": "../space.yaml"})
    path = write_study(tmp_path / "here", GPUS, search={"space": str(space)})
    assert str(space) in render_cluster_file("kuberay", path).paths


def test_what_kubectl_would_not_take_is_refused(tmp_path: Path) -> None:
    path = write_study(tmp_path, GPUS)
    path.write_text(path.read_text() + "# a remark\n" * 23_000)
    with pytest.raises(UserError, match="a config map takes 250,000"):
        render_cluster_file("kuberay", path)


def test_names_are_such_as_kubernetes_allows_and_of_one_study_each(tmp_path: Path) -> None:
    def name(study: str, target: str = "kuberay") -> str:
        text = render_cluster_file(target, write_study(tmp_path, GPUS, name=study)).text
        if target != "kuberay":
            return str(yaml.safe_load(text)["cluster_name"])
        (found,) = {document["metadata"]["name"] for document in yaml.safe_load_all(text)}
        return str(found)

    assert name("my-study") == "my-study"
    assert name("x" * 47) == "x" * 47
    alike = ["Big_Study.1", "big-study.1", "big_study_1", "big-study-1", "Big-Study-1"]
    long = [f"{'x' * 47}{end}" for end in ("a", "b", "-", "")]
    for studies in (alike, long, ["7b", "study-7b"]):
        names = {name(study) for study in studies}
        assert len(names) == len(studies)
        assert all(re.fullmatch(r"[a-z]([a-z0-9-]{0,45}[a-z0-9])?", found) for found in names)
    # Google's machines are called after the cluster and their type, in at most 63 letters.
    names = {name(study, "gcp") for study in (*long, "x" * 36, "x" * 35)}
    assert len(names) == 6 and max(map(len, names)) == 35


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
        ("aws", {"accelerator": "H100"}, "p5.48xlarge"),
        ("aws", {"accelerator": "a100-80g"}, "p4de.24xlarge"),
        ("gcp", {"accelerator": "nvidia-h100-80gb"}, "a3-highgpu-8g"),
        ("gcp", {"accelerator": "A100", "gpus_per_node": 2}, "a2-highgpu-2g"),
        ("aws", {"gpus_per_node": 4, "accelerator": "L40S", "memory_gib": 600}, "g6e.24xlarge"),
        ("gcp", {"gpus_per_node": 0, "memory_gib": 300}, "n2-standard-96"),
        ("aws", {"gpus_per_node": 1, "cpus_per_node": 40, "nodes": 8}, "g6.16xlarge"),
    ],
)
def test_a_cloud_machine_is_the_smallest_that_holds_the_workers(
    target: str, options: dict[str, Any], machine: str, tmp_path: Path
) -> None:
    text = render_cluster_file(target, write_study(tmp_path, GPUS), **options).text
    config = yaml.safe_load(text)["available_node_types"]["worker"]["node_config"]
    assert machine in (config.get("InstanceType"), config.get("machineType"))


@pytest.mark.parametrize("target", ["aws", "gcp"])
def test_a_study_of_one_gpu_type_gets_machines_with_it(target: str, tmp_path: Path) -> None:
    path = write_study(tmp_path, GPUS | {"accelerator_type": "H100"})
    rendered = render_cluster_file(target, path)
    config = yaml.safe_load(rendered.text)["available_node_types"]["worker"]["node_config"]
    if target == "aws":
        assert config["InstanceType"] == "p5.48xlarge"
    else:
        assert config["machineType"] == "a3-highgpu-8g"
        gpus = {"acceleratorType": "nvidia-h100-80gb", "acceleratorCount": 8}
        assert config["guestAccelerators"] == [gpus]
    assert rendered.accelerator_type is None  # nothing is left to name
    with pytest.raises(UserError, match="--accelerator L4: the study trains on H100 alone"):
        render_cluster_file(target, path, accelerator="L4")
    path = write_study(tmp_path, GPUS | {"accelerator_type": "B300"})
    with pytest.raises(UserError, match=r"accelerator_type B300: no machine.*known: .*machine=T"):
        render_cluster_file(target, path)
    assert "p9.huge" in render_cluster_file(target, path, settings={"machine": "p9.huge"}).text


@pytest.mark.parametrize(
    ("options", "gpus"),
    [
        # A machine has as many as it has, however few are asked for.
        ({"gpus_per_node": 3, "nodes": 3}, ("nvidia-l4", 4)),
        ({"settings": {"machine": "a2-highgpu-8g"}}, ("nvidia-tesla-a100", 8)),
        ({"settings": {"machine": "new-8g"}}, None),
        ({"settings": {"machine": "new-8g"}, "accelerator": "nvidia-new"}, ("nvidia-new", 8)),
        ({"gpus_per_node": 0}, None),
    ],
)
def test_googles_machine_and_its_gpus_agree(
    options: dict[str, Any], gpus: tuple[str, int] | None, tmp_path: Path
) -> None:
    text = render_cluster_file("gcp", write_study(tmp_path, GPUS), **options).text
    config = yaml.safe_load(text)["available_node_types"]["worker"]["node_config"]
    found = [
        (g["acceleratorType"], g["acceleratorCount"]) for g in config.get("guestAccelerators", ())
    ]
    assert found == ([gpus] if gpus else [])


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("local", {"nodes": 6}, r"--nodes: `local` uses machines that are there.*worker_ips"),
        ("local", {"gpus_per_node": 4}, "--gpus-per-node: `local`"),
        ("local", {"cpus_per_node": 4}, "--cpus-per-node: `local`"),
        ("local", {"memory_gib": 64}, "--memory: `local`"),
        ("local", {"accelerator": "H100"}, "--accelerator: `local`"),
        ("aws", {"memory_gib": 9000}, r"8 GPUs, 33 CPUs and 9000 GiB.*g6\.48xlarge: 8 GPUs"),
        ("aws", {"cpus_per_node": 500}, "500 CPUs"),
        ("gcp", {"accelerator": "K80"}, r"--accelerator K80: no machine type with it"),
        ("kuberay", {"gpus_per_node": 0, "accelerator": "H100"}, "the machines have no GPUs"),
        ("kuberay", {"settings": {"study": "name: x"}}, "filled from the study file alone"),
    ],
)
def test_what_a_target_cannot_give_is_refused_not_ignored(
    target: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        render_cluster_file(target, write_study(tmp_path, GPUS), **options)
    assert caught.value.exit_code == 2


def test_workers_in_the_cloud_are_let_into_the_bucket(tmp_path: Path) -> None:
    path = write_study(tmp_path, GPUS)

    def worker(target: str, **settings: str) -> dict[str, Any]:
        text = render_cluster_file(target, path, settings=settings).text
        found: dict[str, Any] = yaml.safe_load(text)["available_node_types"]["worker"][
            "node_config"
        ]
        return found

    assert worker("aws", profile="mine")["IamInstanceProfile"] == {"Name": "mine"}
    arn = "arn:aws:iam::1:instance-profile/mine"
    assert worker("aws", profile=arn)["IamInstanceProfile"] == {"Arn": arn}
    assert "IamInstanceProfile" not in worker("aws", profile="")
    (account,) = worker("gcp", worker_account="me@p.iam.gserviceaccount.com")["serviceAccounts"]
    assert account["email"] == "me@p.iam.gserviceaccount.com"
    assert account["scopes"] == ["https://www.googleapis.com/auth/cloud-platform"]
    # Until they are named they are the example's, and said to be.
    assert "profile" in {key for _, key in render_cluster_file("aws", path).left}
    assert "worker_account" in {key for _, key in render_cluster_file("gcp", path).left}
    cluster = manifest(tmp_path, settings={"service_account": "mine"})["RayJob"]["spec"]
    groups = cluster["rayClusterSpec"]
    for group in (groups["headGroupSpec"], *groups["workerGroupSpecs"]):
        assert group["template"]["spec"]["serviceAccountName"] == "mine"


@pytest.mark.parametrize(
    ("nodes", "partition", "gpus"),
    [
        ("cpu*|(null)\nbig|(null)\n", None, False),
        ("cpu*|(null)\ngpu|gpu:a100:8(S:0-1)\n", None, False),
        ("cpu*|(null)\ngpu|gpu:a100:8(S:0-1)\n", "gpu", True),
        ("cpu|(null)\ngpu*|gpu:8\ngpu*|(null)\n", None, True),
        ("cpu*|(null)\n", "unknown", True),  # nothing is known: as the study says
        ("", None, True),
    ],
)
def test_slurm_is_asked_whether_it_has_gpus(
    nodes: str,
    partition: str | None,
    gpus: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "sinfo").write_text(f"#!/bin/sh\nprintf '%s' '{nodes}'\n")
    (tmp_path / "sinfo").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    settings = {"partition": partition} if partition else {}
    text = render_cluster_file("slurm", write_study(tmp_path, GPUS), settings=settings).text
    assert ("\n#SBATCH --gpus-per-node=8" in text) == gpus
    # What is asked for by hand is not looked up.
    path = write_study(tmp_path, GPUS | {"gpus_per_worker": 1})
    assert "\n#SBATCH --gpus-per-node=8" in render_cluster_file("slurm", path).text


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
    path = write_study(
        tmp_path,
        GPUS,
        name="big",
        data={"train": ["a.jsonl", "/data/b.jsonl"], "test": "../c.jsonl", "text": "t"},
        search={"warm_start": ["results/earlier", "s3://bucket/another"]},
    )
    assert render_cluster_file("kuberay", path).paths == (
        "/shared/big/base-model", "/shared/big/a.jsonl", "/data/b.jsonl", "/shared/c.jsonl",
        "/shared/big/results/earlier",
    )  # fmt: skip
    assert str(tmp_path / "a.jsonl") in render_cluster_file("slurm", path).paths


def test_a_header_names_the_file_that_was_written(tmp_path: Path) -> None:
    text = render_cluster_file("slurm", write_study(tmp_path, GPUS), file_name="job.sh").text
    assert "#   sbatch job.sh\n" in text
    assert "cluster/slurm.sh" not in text


@pytest.mark.parametrize("target", ["kuberay", "slurm", "aws", "gcp", "local"])
def test_wrong_input_is_one_message_and_exit_code_2(target: str, tmp_path: Path) -> None:
    path = write_study(tmp_path, GPUS)
    few = "--nodes is 1" if targets.TARGETS[target].takes_machines else "--nodes: `local`"
    for options, message in (
        ({"settings": {"imagee": "x"}}, "`imagee` is no value of this file"),
        ({"nodes": 1, "gpus_per_node": 1}, few),
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


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:secret@host/study",
        "postgresql://host/study?user=me&password=secret",
        "postgresql://me:se/secret@host/study",
        "postgresql://me:my secret@host/study",
        "postgresql+psycopg://host/study?pass%77ord=secret",
    ],
)
def test_a_password_does_not_go_into_a_manifest(url: str, tmp_path: Path) -> None:
    path = write_study(tmp_path, GPUS, storage={"database": url})
    with pytest.raises(UserError, match=r"storage\.database has a password.*study-secrets") as told:
        render_cluster_file("kuberay", path)
    assert "=secret" not in str(told.value) and "secret@" not in str(told.value)
    for place in ({"warm_start": [url]}, {"space": "mine.yaml"}):
        (tmp_path / "mine.yaml").write_text(
            f"# {url.replace(' ', '')}\n"
            "shared: {learning_rate: 1.0e-3, warmup_ratio: 0.1, max_grad_norm: 1.0}\n"
        )
        path = write_study(tmp_path, GPUS, search=place)
        if "space" in place and "%77" in url:
            continue  # in a remark nobody can tell
        with pytest.raises(UserError, match="has a password"):
            render_cluster_file("kuberay", path)
    path = write_study(tmp_path, GPUS, storage={"database": "postgresql://me@host/study"})
    assert "me@host" in render_cluster_file("kuberay", path).text


def test_a_machine_type_that_is_not_known_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--set machine=TYPE"):
        render_cluster_file("aws", write_study(tmp_path, GPUS), gpus_per_node=16)


def test_an_installed_package_asks_for_a_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in site-packages: the files of cluster/ are inside the package, and nothing is beside it.
    package = tmp_path / "site-packages" / "study"
    package.mkdir(parents=True)
    for name in ("cluster", "search_spaces"):
        (package / name).symlink_to(shipped.shipped_folder(name))
    monkeypatch.setattr(shipped, "__file__", str(package / "basics" / "shipped.py"))
    assert render.cluster_folder() == package / "cluster"
    path = write_study(tmp_path, GPUS)
    with pytest.raises(UserError, match="--set source=FOLDER"):
        render_cluster_file("aws", path)
    assert "a/b" in render_cluster_file("aws", path, settings={"source": "a/b"}).text
