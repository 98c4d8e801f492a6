"""Wrong study files and what is to be said about each."""

from __future__ import annotations

GOOD = """\
name: tiny
task: causal-lm
model:
  path: ./model
data:
  train: ./train.jsonl
  prompt: "{q}"
  response: "{a}"
dataset_sizes: [64, 512]
arms: [full, lift]
"""
LAST = len(GOOD.splitlines())


def replaced(line: str, by: str) -> str:
    assert line in GOOD
    return GOOD.replace(line, by)


# (study file, path of the one fault, its line, what its message must say)
WRONG: dict[str, tuple[str, str, int | None, str]] = {
    # Schema.
    "unknown key": (GOOD + "serch: {}\n", "serch", LAST + 1, "Did you mean `search`"),
    "unknown key, none near": (GOOD + "zero: {qqq: 1}\n", "zero.qqq", LAST + 1, "Valid: stage"),
    "key of another section": (GOOD + "epochs: 3\n", "epochs", LAST + 1, "below `training:`"),
    "searched, not set": (
        GOOD + "training: {learning_rate: 5e-5}\n", "training.learning_rate", LAST + 1,
        "search: {overrides: {learning_rate",
    ),
    "misspelt required key": (
        replaced("model:\n", "modle:\n"), "modle", 3, "Did you mean `model`"),
    "missing section": (
        replaced("model:\n  path: ./model\n", ""), "model", None, "Add `model:`"),
    "missing key": (
        replaced("  path: ./model", "  revision: main"), "model.path", 3, "Add `path:`"),
    "section as a value": (
        replaced("model:\n  path: ./model", "model: ./model"), "model", 3, "`path: ...`"),
    "number as text": (
        GOOD + 'search: {trials: "8"}\n', "search.trials", LAST + 1, "Remove the quotes"),
    "text as a number": (replaced("tiny", "2024"), "name", 1, "64 letters"),
    "true as a number": (
        GOOD + "search: {trials: true}\n", "search.trials", LAST + 1, "whole number"),
    "fraction as a count": (
        GOOD + "training:\n  steps: 1.5\n", "training.steps", LAST + 2, "whole number"),
    "text as a switch": (
        replaced("  path: ./model", "  path: ./model\n  trust_remote_code: sometimes"),
        "model.trust_remote_code", 5, "true or false",
    ),
    "zero trials": (GOOD + "search: {trials: 0}\n", "search.trials", LAST + 1, "at least 1"),
    "negative seeds": (GOOD + "confirm: {seeds: -1}\n", "confirm.seeds", LAST + 1, "at least 0"),
    "infinite": (GOOD + "training: {epochs: .inf}\n", "training.epochs", LAST + 1, "finite"),
    "misspelt choice": (
        GOOD + "training: {schedule: cosin}\n", "training.schedule", LAST + 1,
        "Did you mean `cosine`",
    ),
    "true as a stage": (
        GOOD + "zero: {stage: true}\n", "zero.stage", LAST + 1, "0, 1, 2 or 3"),
    "unknown stage": (GOOD + "zero: {stage: 4}\n", "zero.stage", LAST + 1, "0, 1, 2 or 3"),
    "unknown task": (
        replaced("causal-lm", "classification"), "task", 2, "`sequence-classification`"),
    "bad name": (replaced("tiny", "my study/1"), "name", 1, "letter or digit"),
    "one beta": (GOOD + "training: {betas: [0.9]}\n", "training.betas", LAST + 1, "two numbers"),
    "beta of one": (
        GOOD + "training: {betas: [0.9, 1.0]}\n", "training.betas.1", LAST + 1, "below 1"),
    "split above one": (
        replaced("data:", "data:\n  test_size: 1.5"), "data.test_size", 6, "share"),
    "number in a list of files": (
        replaced("./train.jsonl", "[./train.jsonl, 7]"), "data.train.1", 6, "quotes"),
    "gpus as a word": (
        GOOD + "resources: {gpus_per_worker: all}\n", "resources.gpus_per_worker", LAST + 1,
        "`auto`",
    ),
    "several gpus per worker": (
        GOOD + "resources: {gpus_per_worker: 2}\n", "resources.gpus_per_worker", LAST + 1,
        "from 0 to 1",
    ),
    "budget of nothing": (
        GOOD + "budget: {device_hours: 0}\n", "budget.device_hours", LAST + 1, "above 0"),
    "budget as text": (
        GOOD + "budget: {wall_hours: 2h}\n", "budget.wall_hours", LAST + 1, "must be a number"),
    "endless budget": (
        GOOD + "budget: {wall_hours: .inf}\n", "budget.wall_hours", LAST + 1, "finite"),
    "misspelt budget": (
        GOOD + "budget: {gpu_hours: 2}\n", "budget.gpu_hours", LAST + 1, "device_hours"),
    # Sizes and arms.
    "no sizes": (replaced("[64, 512]", "[]"), "dataset_sizes", 9, "at least 1"),
    "negative size": (replaced("[64, 512]", "[64, -5]"), "dataset_sizes.1", 9, "at least 1"),
    "size of zero": (replaced("[64, 512]", "0"), "dataset_sizes", 9, "number of examples"),
    "repeated size": (replaced("[64, 512]", "[64, 512, 64]"), "dataset_sizes", 9, "twice"),
    "no arm": (replaced("[full, lift]", "{}"), "arms", 10, "at least one arm"),
    "empty arms": (replaced(" [full, lift]", ""), "arms", 10, "at least one arm"),
    "unknown arm": (replaced("[full, lift]", "[full, lfit]"), "arms", 10, "Did you mean `lift`"),
    "unknown arm section": (
        replaced("[full, lift]", "{lora: {}}"), "arms.lora", 10, "Valid: full, lift"),
    "repeated arm": (replaced("[full, lift]", "[full, full]"), "arms", 10, "twice"),
    "setting of another arm": (
        replaced("[full, lift]", "{full: {sweeps: 2}}"), "arms.full.sweeps", 10, "lift"),
    # LIFT's structure.
    "groups and group size": (
        replaced("[full, lift]", "{lift: {groups: [2, 2], group_size: 2}}"),
        "arms.lift.group_size", 10, "exclude each other",
    ),
    "group of no blocks": (
        replaced("[full, lift]", "{lift: {groups: [2, 0]}}"), "arms.lift.groups.1", 10,
        "at least 1",
    ),
    "no groups": (
        replaced("[full, lift]", "{lift: {groups: []}}"), "arms.lift.groups", 10, "at least 1"),
    "groups as a number": (
        replaced("[full, lift]", "{lift: {groups: 4}}"), "arms.lift.groups", 10, "a list"),
    "groups as words": (
        replaced("[full, lift]", "{lift: {groups: two four}}"), "arms.lift.groups", 10,
        "[2, 4, 6]",
    ),
    "misspelt order": (
        replaced("[full, lift]", "{lift: {order: topdown}}"), "arms.lift.order", 10,
        "Did you mean `top-down`",
    ),
    "misspelt split of steps": (
        replaced("[full, lift]", "{lift: {phase_steps: propotional}}"), "arms.lift.phase_steps",
        10, "Did you mean `proportional`",
    ),
    "misspelt part": (
        replaced("[full, lift]", "{lift: {always_active: [haed]}}"), "arms.lift.always_active",
        10, "Did you mean `head`",
    ),
    "unknown part in text": (
        replaced("[full, lift]", "{lift: {always_active: 'head, last_k_blocks'}}"),
        "arms.lift.always_active", 10, "K is a number: last_2_blocks",
    ),
    "part listed twice": (
        replaced("[full, lift]", "{lift: {always_active: [head, head]}}"),
        "arms.lift.always_active", 10, "twice",
    ),
    "number as a part": (
        replaced("[full, lift]", "{lift: {always_active: [head, 2]}}"),
        "arms.lift.always_active.1", 10, "quotes",
    ),
    "group size here, groups searched": (
        replaced("[full, lift]", "{lift: {group_size: 2}}")
        + "search: {overrides: {lift: {groups: '2, 2'}}}\n",
        "arms.lift.group_size", 10, "decides `groups`",
    ),
    "groups here, group size searched": (
        replaced("[full, lift]", "{lift: {groups: [2, 2]}}")
        + "search: {space: lift-structure}\n",
        "arms.lift.groups", 10, "decides `group_size`",
    ),
    "groups and group size searched": (
        GOOD + "search: {space: lift-structure, overrides: {lift: {groups: '2, 2'}}}\n",
        "search.space", LAST + 1, "the space has both",
    ),
    # Training, ZeRO, resources.
    "epochs and steps": (
        GOOD + "training:\n  epochs: 2\n  steps: 10\n", "training.steps", LAST + 3, "Keep one"),
    "steps and min_steps": (
        GOOD + "training:\n  steps: 10\n  min_steps: 5\n", "training.min_steps", LAST + 3,
        "no effect",
    ),
    "batch and workers": (
        GOOD + "training: {global_batch_size: 10}\nresources: {workers_per_trial: 4}\n",
        "training.global_batch_size", LAST + 1, "Nearest: 8 or 12",
    ),
    "batch and micro-batch": (
        GOOD + "training: {global_batch_size: 4, micro_batch_size_per_worker: 8}\n",
        "training.global_batch_size", LAST + 1, "Nearest: 8",
    ),
    "default batch and workers": (
        GOOD + "resources: {workers_per_trial: 3}\n", "training.global_batch_size", None,
        "Nearest: 15 or 18",
    ),
    "parameter offload below stage 3": (
        GOOD + "zero: {offload_parameters: cpu}\n", "zero.offload_parameters", LAST + 1,
        "stage: 3",
    ),
    "optimizer offload on stage 0": (
        GOOD + "zero: {stage: 0, offload_optimizer: cpu}\n", "zero.offload_optimizer", LAST + 1,
        "stage: 2",
    ),
    "owned override": (
        GOOD + "zero:\n  overrides:\n    bf16: {enabled: true}\n", "zero.overrides.bf16",
        LAST + 3, "training.precision",
    ),
    "owned nested override": (
        GOOD + "zero:\n  overrides:\n    zero_optimization:\n      stage: 3\n",
        "zero.overrides.zero_optimization.stage", LAST + 4, "zero.stage",
    ),
    "overrides as a list": (
        GOOD + "zero: {overrides: [1]}\n", "zero.overrides", LAST + 1, "section"),
    "zero_optimization as a value": (
        GOOD + "zero: {overrides: {zero_optimization: 3}}\n",
        "zero.overrides.zero_optimization", LAST + 1, "section",
    ),
    "gpu shared within a trial": (
        GOOD + "resources: {workers_per_trial: 2, gpus_per_worker: 0.5}\n",
        "resources.gpus_per_worker", LAST + 1, "cannot share",
    ),
    # Data and task.
    "no columns": (
        replaced('  prompt: "{q}"\n  response: "{a}"\n', ""), "data", 5, "exactly one"),
    "two forms": (replaced("data:", "data:\n  text: text"), "data", 5, "text and prompt"),
    "prompt without response": (
        replaced('  response: "{a}"\n', ""), "data.prompt", 7, "needs a response"),
    "response without prompt": (
        replaced('  prompt: "{q}"\n', ""), "data.response", 7, "needs a prompt"),
    "label in causal-lm": (
        replaced("data:", "data:\n  label: y"), "data.label", 6, "sequence-classification"),
    "open brace": (replaced("{a}", "{a"), "data.response", 8, "not a template"),
    "positional field": (replaced("{q}", "{}"), "data.prompt", 7, "column in braces"),
    "format specification": (replaced("{q}", "{q:>5}"), "data.prompt", 7, "column in braces"),
    "column without braces": (replaced('"{a}"', "answer"), "data.response", 8, '"{answer}"'),
    "prompt without braces": (replaced('"{q}"', "question"), "data.prompt", 7, '"{question}"'),
    "column with braces": (
        replaced('  prompt: "{q}"\n  response: "{a}"\n', '  text: "{body}"\n'), "data.text", 7,
        "text: body",
    ),
    "classification without label": (
        replaced("causal-lm", "sequence-classification").replace(
            '  prompt: "{q}"\n  response: "{a}"\n', "  text: body\n"),
        "data.label", 5, "label column",
    ),
    "splits take everything": (
        replaced("data:", "data:\n  test_size: 0.5\n  validation_size: 0.5"),
        "data.validation_size", 7, "below 1",
    ),
    # Files.
    "missing model": (replaced("./model", "./modle"), "model.path", 4, "Did you mean"),
    "model in a folder that is here": (
        replaced("./model", "model/llama"), "model.path", 4, "no such model folder"),
    "model is a file": (replaced("./model", "./train.jsonl"), "model.path", 4, "not a file"),
    "missing tokenizer": (
        replaced("  path: ./model", "  path: ./model\n  tokenizer: ./tok"), "model.tokenizer", 5,
        "no such tokenizer",
    ),
    "missing data": (
        replaced("./train.jsonl", "./trian.jsonl"), "data.train", 6, "train.jsonl`"),
    "missing data without a dot": (
        replaced("./train.jsonl", "nowhere.csv"), "data.train", 6, "no file matches"),
    "empty glob": (replaced("./train.jsonl", "./*.parquet"), "data.train", 6, "no file matches"),
    "one of several files": (
        replaced("./train.jsonl", "[./train.jsonl, ./no.jsonl]"), "data.train.1", 6, "no file"),
    "folder without data": (
        replaced("./train.jsonl", "./model/../empty"), "data.train", 6, "no file matches"),
    "unknown format": (
        replaced("./train.jsonl", "./study.yaml"), "data.train", 6, "Known formats: .jsonl"),
    "empty list of files": (replaced("./train.jsonl", "[]"), "data.train", 6, "at least one"),
    "missing retention": (
        replaced("data:", "data:\n  retention: ./no.txt"), "data.retention", 6, "no file"),
    "home of nobody": (
        replaced("./train.jsonl", "~nobody-here/train.jsonl"), "data.train", 6, "no home folder"),
    "name too long": (replaced("./model", "./" + "m" * 5000), "model.path", 4, "no such model"),
    "results below a file": (
        GOOD + "storage: {results: train.jsonl/out}\n", "storage.results", LAST + 1, "is a file"),
    "prefix cache below a file": (
        GOOD + "prefix_cache: {folder: train.jsonl/x}\n", "prefix_cache.folder", LAST + 1,
        "is a file",
    ),
    "no room for a prefix cache": (
        GOOD + "prefix_cache: {max_gib: 0}\n", "prefix_cache.max_gib", LAST + 1, "above 0"),
    "prefix cache neither auto nor off": (
        GOOD + "prefix_cache: {enabled: true}\n", "prefix_cache.enabled", LAST + 1, "auto"),
    # Storage.
    "not a database": (
        GOOD + "storage: {database: study.db}\n", "storage.database", LAST + 1, "sqlite:///"),
    "another database": (
        GOOD + "storage: {database: 'mysql://h/d'}\n", "storage.database", LAST + 1,
        "postgresql",
    ),
    "database in memory": (
        GOOD + "storage: {database: 'sqlite://'}\n", "storage.database", LAST + 1, "lost"),
    # Search space.
    "unknown space": (
        GOOD + "search: {space: defualt}\n", "search.space", LAST + 1, "Did you mean `default`"),
    "missing space file": (
        GOOD + "search: {space: ./mine.yaml}\n", "search.space", LAST + 1, "no such file"),
    "inline space": (
        GOOD + "search:\n  space:\n    shared:\n      learning_rate: {low: 1, high: 0.5}\n",
        "search.space.shared.learning_rate.high", LAST + 4, "above `low`",
    ),
    "override of an unknown parameter": (
        GOOD + "search:\n  overrides:\n    learnin_rate: 1e-5\n",
        "search.overrides.learnin_rate", LAST + 3, "Did you mean `learning_rate`",
    ),
    "override past the other bound": (
        GOOD + "search:\n  overrides:\n    learning_rate:\n      low: 1e-3\n",
        "search.overrides.learning_rate.high", LAST + 3, "above `low`",
    ),
    "LIFT's parameter for both": (
        GOOD + "search: {overrides: {sweeps: 2}}\n", "search.overrides.sweeps", LAST + 1,
        "below `lift:`",
    ),
    "decided twice": (
        replaced("[full, lift]", "{lift: {sweeps: 2}}") + "search: {space: lift-structure}\n",
        "arms.lift.sweeps", 10, "decides this too",
    ),
    "beta2 for SGD": (
        GOOD + "training: {optimizer: sgd}\nsearch: {overrides: {beta2: 0.9}}\n",
        "training.optimizer", LAST + 1, "SGD",
    ),
    # YAML itself.
    "duplicate key": (GOOD + "name: again\n", "name", LAST + 1, "already in line 1"),
    "nested duplicate": (
        GOOD + "search:\n  trials: 4\n  trials: 8\n", "search.trials", LAST + 3, "twice"),
    "tab": (GOOD + "search:\n\ttrials: 4\n", "YAML", LAST + 2, "spaces, not tabs"),
    "open bracket": (GOOD + "zero: {stage: 2\n", "YAML", LAST + 2, "brackets"),
    "two documents": (GOOD + "---\nname: b\n", "YAML", LAST + 1, "second `---`"),
    "tag": (GOOD + "zero: !!python/object:os.system {}\n", "YAML", LAST + 1, "tag"),
    "base 60": (GOOD + "budget: {wall_hours: 1:30}\n", "budget.wall_hours", LAST + 1, "number"),
    "leading zero": (GOOD + "seed: 020\n", "YAML", LAST + 1, "in quotes"),
    "nested a thousand times": (
        GOOD + f"zero: {{overrides: {'[' * 1000}{']' * 1000}}}\n", "YAML", LAST + 1,
        "more than 32 levels of nesting",
    ),
    "nested through aliases": (
        GOOD + "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 40)),
        "a31", LAST + 32, "more than 32 levels of nesting",
    ),
    "a bomb of aliases": (
        GOOD + "a0: &a0 [x, x]\n"
        + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9)),
        "a4", LAST + 5, "more than 10,000 values",
    ),
    "many aliases": (
        GOOD + f"a: &a x\nb: [{', '.join(['*a'] * 101)}]\n", "YAML", LAST + 2,
        "more than 100 aliases",
    ),
    "too long": (GOOD + "# a comment\n" * 30_000, "{file}", None, "longer than 256 KiB"),
    "a long line": (GOOD + f"# {'x' * 2**16}\n", "YAML", LAST + 1, "65,536 characters"),
    "a control character": (GOOD + "seed: \x1b[31m\n", "YAML", LAST + 1, r"'\x1b'"),
    "a null character": (replaced("tiny", "ti\0ny"), "YAML", 1, r"'\x00'"),
    "a null character in a path": (replaced("./model", '"./mo\\0del"'), "YAML", 4, r"'\x00'"),
    "half a character": (replaced("tiny", r'"\ud800"'), "YAML", 1, r"'\ud800'"),
    "a number beyond all": (GOOD + f"seed: {'9' * 5000}\n", "YAML", LAST + 1, "too large"),
    "a number in base 16 beyond all": (
        GOOD + f"seed: 0x{'f' * 17}\n", "YAML", LAST + 1, "too large"),
    "a key with a dot": (
        GOOD + "decision: {0.01: x}\n", "decision.0.01", LAST + 1, "unknown key"),
    "a group of endless digits": (
        replaced("[full, lift]", f"{{lift: {{groups: '{'9' * 5000}'}}}}"), "arms.lift.groups", 10,
        "[2, 4, 6]",
    ),
    # No end.
    "endless trials": (
        GOOD + "search: {trials: 2000000000}\n", "search.trials", LAST + 1, "20,000"),
    "endless replicates": (
        GOOD + "search: {replicates: 1000}\n", "search.replicates", LAST + 1, "150"),
    "endless evaluations": (
        GOOD + "training: {evaluations: 1000000000}\n", "training.evaluations", LAST + 1,
        "At most 1,000,000",
    ),
    "endless steps": (
        GOOD + "training: {steps: 1000000000000}\n", "training.steps", LAST + 1, "100,000,000"),
    "endless epochs": (
        GOOD + "training: {epochs: 1.0e+300}\n", "training.epochs", LAST + 1, "100,000,000"),
    "endless sweeps": (
        replaced("[full, lift]", "{lift: {sweeps: 1000000000}}"), "arms.lift.sweeps", 10,
        "at most 1000",
    ),
    "value inside itself": (GOOD + "zero: &z\n  overrides: *z\n", "zero.overrides", LAST + 2,
                            "contains itself"),
    "empty file": ("# nothing yet\n", "study", None, "study init"),
    "a list": ("- a\n- b\n", "study", None, "study init"),
    "keys that are no text": (GOOD + "1: 2\n", "1", LAST + 1, "unknown key"),
}  # fmt: skip
