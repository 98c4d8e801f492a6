"""The files of `cluster/`, as they stand and as rendered, by the rules of those who read them."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from referencing import Registry, Resource

from study.config.load import parse_config
from study.launch import TARGETS, render_cluster_file
from tests.helpers.cluster_studies import SHAPES, write_study

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
SCHEMAS = Path(__file__).parent / "schemas"
LAUNCHERS = ("aws", "gcp", "local")
FORMS = ("unedited", *SHAPES)


def text_of(target: str, form: str, folder: Path) -> str:
    """A target's file, unedited or rendered for one of the shapes."""
    if form == "unedited":
        return (CLUSTER / TARGETS[target].file).read_text()
    resources, options, _ = SHAPES[form]
    options = options if TARGETS[target].takes_machines else {}
    return render_cluster_file(target, write_study(folder, resources), **options).text


def validator(kind: str) -> jsonschema.Draft202012Validator:
    kubernetes = yaml.safe_load((SCHEMAS / "kubernetes.json").read_text())
    registry = Registry().with_resource("kubernetes.json", Resource.from_contents(kubernetes))
    if kind == "RayJob":
        schema = yaml.safe_load((SCHEMAS / "rayjob.yaml").read_text())
    else:
        schema = {"$ref": f"kubernetes.json#/$defs/io.k8s.api.core.v1.{kind}"}
    return jsonschema.Draft202012Validator(schema, registry=registry)


def documents(text: str) -> dict[str, Any]:
    return {document["kind"]: document for document in yaml.safe_load_all(text)}


def pod_specs(job: dict[str, Any]) -> Iterator[dict[str, Any]]:
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        yield group["template"]["spec"]


@pytest.mark.parametrize("form", FORMS)
def test_the_manifest_has_only_fields_that_kubernetes_and_kuberay_know(
    form: str, tmp_path: Path
) -> None:
    found = documents(text_of("kuberay", form, tmp_path))
    assert set(found) == {"ConfigMap", "RayJob"}
    for kind, document in found.items():
        validator(kind).validate(document)


@pytest.mark.parametrize(
    "place",
    [
        (), ("spec",), ("spec", "rayClusterSpec"), ("spec", "rayClusterSpec", "authOptions"),
        ("spec", "rayClusterSpec", "headGroupSpec", "template", "spec"),
        ("spec", "rayClusterSpec", "workerGroupSpecs", 0),
        ("spec", "rayClusterSpec", "workerGroupSpecs", 0, "template", "spec", "containers", 0),
    ],
)  # fmt: skip
def test_the_schema_refuses_an_unknown_field_at_any_depth(place: tuple[Any, ...]) -> None:
    job = documents((CLUSTER / "kuberay-rayjob.yaml").read_text())["RayJob"]
    at = job = copy.deepcopy(job)
    for step in place:
        at = at[step]
    at["replica"] = 1
    with pytest.raises(jsonschema.ValidationError, match="'replica' was unexpected"):
        validator("RayJob").validate(job)


def test_the_volume_is_a_claim_that_many_nodes_can_write() -> None:
    claim = yaml.safe_load((CLUSTER / "kuberay-volume.yaml").read_text())
    validator("PersistentVolumeClaim").validate(claim)
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    job = documents((CLUSTER / "kuberay-rayjob.yaml").read_text())["RayJob"]
    for pod in pod_specs(job):
        claims = [v["persistentVolumeClaim"] for v in pod["volumes"] if v["name"] == "shared"]
        assert claims == [{"claimName": claim["metadata"]["name"]}]


@pytest.mark.parametrize("form", FORMS)
def test_pods_mount_volumes_they_have_and_run_without_privileges(form: str, tmp_path: Path) -> None:
    found = documents(text_of("kuberay", form, tmp_path))
    for pod in pod_specs(found["RayJob"]):
        volumes = {volume["name"] for volume in pod["volumes"]}
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == volumes
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        # Kubernetes refuses a request above its limit.
        limits = container["resources"]["limits"]
        assert container["resources"]["requests"].items() <= limits.items()
        for volume in pod["volumes"]:
            if "configMap" in volume:
                assert volume["configMap"]["name"] == found["ConfigMap"]["metadata"]["name"]


@pytest.mark.parametrize("form", FORMS)
def test_rays_own_autoscaler_reads_the_cluster_from_the_manifest(form: str, tmp_path: Path) -> None:
    from ray.autoscaler._private.kuberay.autoscaling_config import (
        _derive_autoscaling_config_from_ray_cr,
    )

    job = documents(text_of("kuberay", form, tmp_path))["RayJob"]
    config = _derive_autoscaling_config_from_ray_cr(
        {"metadata": job["metadata"], "spec": job["spec"]["rayClusterSpec"]}
    )
    shape = SHAPES["8-gpus-one-node" if form == "unedited" else form][2]
    workers = config["available_node_types"]["workers"]
    assert (workers["min_workers"], workers["max_workers"]) == (shape.nodes_per_trial, shape.nodes)
    # One CPU of a pod is Ray's own, and all of the head's are the study's.
    assert workers["resources"]["CPU"] == shape.cpus_per_node - 1
    assert workers["resources"].get("GPU", 0) == shape.gpus_per_node
    head = config["available_node_types"]["headgroup"]["resources"]
    assert (head["CPU"], head["GPU"]) == (0, 0)
    assert config["idle_timeout_minutes"] == 10


@pytest.mark.parametrize("form", FORMS)
def test_the_dashboard_stays_inside_and_asks_for_a_token(form: str, tmp_path: Path) -> None:
    cluster = documents(text_of("kuberay", form, tmp_path))["RayJob"]["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert "enableIngress" not in cluster["headGroupSpec"]
    # KubeRay's token needs Ray 2.52.
    assert tuple(map(int, cluster["rayVersion"].split("."))) >= (2, 52)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("target", LAUNCHERS)
def test_rays_launcher_accepts_its_file(target: str, form: str, tmp_path: Path) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(yaml.safe_load(text_of(target, form, tmp_path)))
    validate_config(config)
    if target != "local":
        shape = SHAPES["8-gpus-one-node" if form == "unedited" else form][2]
        worker = config["available_node_types"]["worker"]
        assert config["max_workers"] == worker["max_workers"] == shape.nodes
        gpus = {"GPU": shape.gpus_per_node} if shape.gpus_per_node else {}
        assert worker["resources"] == {"CPU": shape.cpus_per_node - 1} | gpus
        assert config["available_node_types"]["head"]["resources"] == {"CPU": 0, "GPU": 0}


@pytest.mark.parametrize("target", LAUNCHERS)
def test_rays_launcher_refuses_a_typo_in_it(target: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = yaml.safe_load((CLUSTER / TARGETS[target].file).read_text())
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minute"):
        validate_config(prepare_config(config | {"idle_timeout_minute": 1}))


@pytest.mark.parametrize("target", LAUNCHERS)
def test_every_ray_of_a_launcher_asks_for_the_token_and_hides_its_dashboard(target: str) -> None:
    config = yaml.safe_load((CLUSTER / TARGETS[target].file).read_text())
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    starts = [
        command
        for where in ("head", "worker")
        for command in config[f"{where}_start_ray_commands"]
        if "ray start" in command
    ]
    assert len(starts) == 2
    for command in starts:
        assert "RAY_AUTH_MODE=token" in command
    assert "--dashboard-host=127.0.0.1" in starts[0]


@pytest.mark.parametrize("form", FORMS)
def test_shellcheck_has_nothing_to_say_about_the_batch_script(form: str, tmp_path: Path) -> None:
    script = tmp_path / "job.sh"
    script.write_text(text_of("slurm", form, tmp_path))
    shellcheck = Path(sys.executable).parent / "shellcheck"
    checked = subprocess.run([shellcheck, script], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stdout) == (0, "")


FILES = sorted(path for path in CLUSTER.iterdir() if path.name != "README.md")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_the_header_has_one_command_that_names_the_file(path: Path) -> None:
    header = re.match(r"(#.*\n)+", path.read_text())
    assert header is not None
    commands = [
        line for line in header[0].splitlines()
        if line.startswith("#   ") and f"cluster/{path.name}" in line
    ]  # fmt: skip
    assert len(commands) == 1
    assert "The one command" in header[0] and re.search(r"[Ee]dit", header[0])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_no_file_holds_a_credential(path: Path) -> None:
    assert not re.search(
        r"(?i)(password|secret_?key|access_?key\w*|auth_token|token)\s*[:=]\s*['\"]?[\w+/]{8,}"
        r"|AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY|://[^/@:\s]+:[^/@\s]+@",
        path.read_text(),
    )


def test_versions_in_the_files_are_those_of_the_constraints() -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split())
    for name in ("Dockerfile", "Dockerfile.cpu"):
        text = (CLUSTER / name).read_text()
        found = dict(re.findall(r"([\w-]+)(?:\[[\w,]+\])?==([\w.]+)", text))
        assert set(found) == {"torch", "ray", "deepspeed", "transformers"}
        assert found.items() <= pins.items(), name
        # Everything else is held by the same file.
        assert "-c /tmp/constraints.txt '/tmp/source[postgresql]'" in text
        assert re.search(r"^USER (?!0|root)\w+$", text, re.M)
    job = documents((CLUSTER / "kuberay-rayjob.yaml").read_text())["RayJob"]
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == pins["ray"]


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cpu"])
def test_an_image_copies_all_that_the_wheel_is_made_from(name: str) -> None:
    import tomllib

    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    wanted = {*wheel["targets"]["wheel"]["packages"], *wheel["targets"]["wheel"]["force-include"]}
    text = (CLUSTER / name).read_text()
    assert wanted <= set(re.findall(r"^COPY (\w+) /tmp/source/\1$", text, re.M))


def test_the_examples_study_is_a_study() -> None:
    found = documents((CLUSTER / "kuberay-rayjob.yaml").read_text())["ConfigMap"]
    config = parse_config(found["data"]["study.yaml"])
    assert config.resources.workers_per_trial == 8


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cpu"])
def test_an_image_has_what_kuberay_looks_after_its_pods_with(name: str) -> None:
    """KubeRay 1.5 asks a pod how it is by running wget in it, and kills one that has none."""
    text = (CLUSTER / name).read_text()
    installed = re.search(r"apt-get install -y --no-install-recommends (.+) \\\n", text)
    assert installed is not None and "wget" in installed[1].split()
