"""Exports are read by the tools' own code, as published on the package registry.

Fetched once a session and unmodified: axolotl 0.19.0 (the newest for Python 3.11), of which the
schema `AxolotlInputConfig` and the prompt strategy of user-defined prompts are loaded;
LLaMA-Factory 0.9.5, of which `get_train_args` and `get_dataset_list` are; badam 1.4, of which the
optimizer that LLaMA-Factory starts runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from study.training.engine.ops import prepare_ops
from tests.helpers.models import tiny_model_folder
from tests.reuse.best_content import best_content, export
from tests.reuse.tools import fetch, python

pytestmark = pytest.mark.network

TEXT = {"prompt": None, "response": None, "text": "body"}
CHAT = {"prompt": None, "response": None, "messages": "talk", "validation": "/data/held-out.jsonl"}
BOTH = {"prompt": "Q: {question}\nIn {{braces}}: {context}\n", "response": "{answer}"}
FIXED = {"prompt": "Q: {question}\n", "response": "A: {answer}"}
SGD = {"optimizer": "sgd", "schedule": "constant", "micro_batch_size_per_worker": 4}

AXOLOTL = """
import json, sys, yaml
from axolotl.prompt_strategies.user_defined import UserDefinedDatasetConfig, load
from axolotl.utils.schemas.config import AxolotlInputConfig

class Cfg:
    train_on_inputs, sequence_len = False, 256

answers = []
for path in sys.argv[1:]:
    settings = yaml.safe_load(open(path))
    fields = AxolotlInputConfig.model_fields
    read = AxolotlInputConfig(**settings)
    prompts = []
    for entry in read.datasets:
        if not isinstance(entry.type, str):
            kind = UserDefinedDatasetConfig(**entry.type.model_dump(exclude_none=True))
            prompter = load(None, Cfg, kind).prompter
            prompts += [next(prompter.build_prompt_w_system("", "{one}", second))
                        for second in ("two", "")]
    answers.append({"unknown": sorted(set(settings) - set(fields)), "prompts": prompts,
                    "read": read.model_dump(mode="json", exclude_none=True)})
print(json.dumps(answers))
"""

LLAMAFACTORY = """
import importlib.util, json, os, sys
from llamafactory.hparams import parser

def load(name):  # the package llamafactory.data imports what reads images and sound
    place = os.path.join(os.path.dirname(parser.__file__), "..", *name.split(".")) + ".py"
    spec = importlib.util.spec_from_file_location("llamafactory." + name, place)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module

data_parser = load("data.parser")
answers = []
for folder in sys.argv[1:]:
    os.chdir(folder)
    sys.argv = ["llamafactory-cli", "llamafactory.yaml"]
    model, data, training, tuning, _ = parser.get_train_args()
    names = (data.dataset or []) + (data.eval_dataset or [])
    listed = data_parser.get_dataset_list(names, data.dataset_dir)
    answers.append({
        "model": vars(model)["model_name_or_path"], "badam": tuning.use_badam,
        "mode": tuning.badam_switch_mode, "interval": tuning.badam_switch_interval,
        "steps": training.max_steps, "schedule": str(training.lr_scheduler_type.value),
        "kwargs": training.lr_scheduler_kwargs, "rate": training.learning_rate,
        "deepspeed": training.deepspeed is not None, "stage": tuning.stage,
        "optimizer": str(training.optim.value),
        "datasets": [[d.load_from, d.dataset_name, d.formatting, d.prompt, d.response, d.messages]
                     for d in listed]})
print(json.dumps(answers))
"""

BADAM = """
import json, sys, yaml
import torch
from badam import BlockOptimizer
from transformers import AutoModelForCausalLM

def course(settings):
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
    # As llamafactory.train.trainer_utils._create_badam_optimizer does.
    vectors = [p for p in model.parameters() if p.ndim < 2]
    matrices = [p for p in model.parameters() if p.ndim > 1]
    groups = [{"params": vectors, "weight_decay": 0.0},
              {"params": matrices, "weight_decay": settings["weight_decay"]}]
    inner = torch.optim.AdamW(groups, lr=settings["learning_rate"])
    outer = BlockOptimizer(
        base_optimizer=inner, named_parameters_list=list(model.named_parameters()),
        block_prefix_list=None, switch_block_every=settings["badam_switch_interval"],
        start_block=None, switch_mode=settings["badam_switch_mode"], verbose=0)
    ids = torch.arange(5, 15)[None]
    for _ in range(settings["max_steps"]):
        before = {n: p.detach().clone() for n, p in model.named_parameters()}
        model(input_ids=ids, labels=ids).loss.backward()
        decay = sorted({g["weight_decay"] for g in inner.param_groups})
        outer.step()
        outer.zero_grad()
        moved = [n for n, p in model.named_parameters() if not torch.equal(p, before[n])]
        yield sorted({n.split(".")[2] if ".layers." in n else n for n in moved}), decay

print(json.dumps([list(course(yaml.safe_load(open(path)))) for path in sys.argv[2:]]))
"""


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fetch(
        tmp_path_factory.mktemp("packages"),
        "axolotl==0.19.0",
        "addict==2.4.0",
        "colorama==0.4.6",
        "llamafactory==0.9.5",
        "omegaconf==2.4.0",
        "peft==0.18.1",
        "badam==1.4",
    )


def test_axolotl_reads_every_key_and_fills_the_same_prompts(packages: Path, tmp_path: Path) -> None:
    contents = [
        best_content(),
        best_content(data=BOTH, zero={"stage": 0}),
        best_content(data=FIXED, training={"schedule": "linear"}),
        best_content(data=TEXT, training=SGD, model={"gradient_checkpointing": True}),
        best_content(data=CHAT, model={"revision": "main", "tokenizer": "org/other"}),
    ]
    files = []
    for number, content in enumerate(contents):
        files.append(tmp_path / f"{number}.yaml")
        files[-1].write_text(export(content, "axolotl").text)
    answers = json.loads(
        python(AXOLOTL, *map(str, files), packages=packages, cwd=tmp_path).splitlines()[-1]
    )
    for file, answer in zip(files, answers, strict=True):
        assert answer["unknown"] == []
        settings, read = yaml.safe_load(file.read_text()), answer["read"]
        for name in set(settings) - {"datasets", "test_datasets"}:
            assert read[name] == settings[name], name
    plain, both, fixed, text, chat = answers
    assert plain["prompts"] == ["Q: {one}\n", "Q: {one}\n"]
    assert both["prompts"] == ["Q: {one}\nIn {braces}: two\n", "Q: {one}\nIn {braces}: \n"]
    assert fixed["prompts"] == ["{one}", "{one}"]
    assert fixed["read"]["datasets"][0]["path"] == "rendered.jsonl"
    assert text["read"]["datasets"][0]["type"] == "completion"
    assert text["read"]["optim_args"] == "momentum=0.9"
    assert chat["read"]["datasets"][0]["chat_template"] == "tokenizer_default"
    assert chat["read"]["test_datasets"][0]["path"] == "/data/held-out.jsonl"


def test_llamafactory_reads_full_and_lift(packages: Path, tmp_path: Path) -> None:
    prepare_ops("cpu")
    contents = {
        "zero": best_content(),
        "text": best_content(data=TEXT, training=SGD, zero={"stage": 0}),
        "chat": best_content(data=CHAT, zero={"stage": 0}),
        "lift": best_content("lift"),
    }
    for name, content in contents.items():
        made = export(content, "llamafactory")
        (tmp_path / name).mkdir()
        for file, written in {made.name: made.text, **made.siblings}.items():
            (tmp_path / name / file).write_text(written)
    # One process as torchrun starts it: DeepSpeed wants that.
    launched = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    launched |= {"MASTER_PORT": "0", "DISABLE_VERSION_CHECK": "1", "CUDA_VISIBLE_DEVICES": ""}
    folders = [str(tmp_path / name) for name in contents]
    said = python(LLAMAFACTORY, *folders, packages=packages, cwd=tmp_path, **launched)
    answers = dict(zip(contents, json.loads(said.splitlines()[-1]), strict=True))
    rendered = ["file", "rendered.jsonl", "alpaca", "prompt", "response", None]
    zero, text, chat, lift = answers.values()
    assert zero == {
        "model": "/models/base", "badam": False, "mode": "ascending", "interval": 50,
        "steps": 200, "schedule": "cosine_warmup_with_min_lr", "rate": 3e-05,
        "kwargs": {"min_lr_rate": 0.0, "num_cycles": pytest.approx(0.5 * 190 / 191)},
        "deepspeed": True, "stage": "sft", "optimizer": "adamw_torch_fused",
        "datasets": [rendered],
    }  # fmt: skip
    assert (text["stage"], text["optimizer"], text["deepspeed"]) == ("pt", "sgd", False)
    assert text["datasets"] == [["file", "/data/train.jsonl", "alpaca", "body", None, None]]
    assert text["schedule"] == "warmup_stable_decay"
    assert [d[1] for d in chat["datasets"]] == ["/data/train.jsonl", "/data/held-out.jsonl"]
    assert {(d[2], d[5]) for d in chat["datasets"]} == {("sharegpt", "talk")}
    assert (lift["badam"], lift["mode"], lift["interval"]) == (True, "descending", 50)
    assert (lift["steps"], lift["deepspeed"]) == (199, False)


def test_badam_gives_every_layer_its_turn_in_lifts_order(packages: Path, tmp_path: Path) -> None:
    structures: list[tuple[dict[str, Any], int, list[str]]] = [
        ({"sweeps": 1}, 11, ["3", "2", "1", "0"]),
        ({"sweeps": 2}, 5, ["3", "2", "1", "0"] * 2),
        ({"order": "bottom-up"}, 11, ["0", "1", "2", "3"]),
    ]
    files = []
    for number, (strategy, _, _) in enumerate(structures):
        content = best_content(
            "lift", run={"steps": 42}, strategy=strategy, training={"weight_decay": 0.3}
        )
        files.append(tmp_path / f"{number}.yaml")
        files[-1].write_text(export(content, "llamafactory").text)
    folder = tiny_model_folder(tmp_path)
    said = python(BADAM, str(folder), *map(str, files), packages=packages, cwd=tmp_path)
    courses = json.loads(said.splitlines()[-1])
    for (_, turn, layers), course in zip(structures, courses, strict=True):
        expected = [[layer] for layer in layers for _ in range(turn)]
        # Its first turn is one step shorter, and decay is AdamW's default: the notes say both.
        assert [trained for trained, _ in course] == expected[1:]
        assert {tuple(decay) for _, decay in course} == {(0.01,)}
