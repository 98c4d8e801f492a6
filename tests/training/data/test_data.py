"""The study's data from file to arrays."""

from __future__ import annotations

import dataclasses
import gzip
import json
import math
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare

from study.basics.errors import DataError, OtherDataError
from study.protocol.records import DataSummary
from study.training.data.prepare import GENERAL_TEXT, check_sizes, class_prior_losses, prepare_data
from study.training.data.readers import Draw
from study.training.data.tokenised import StudyData, TokenisedSplit, use_data
from tests.helpers.data import (
    labelled_rows,
    study_config,
    task_rows,
    text_rows,
    write_csv,
    write_jsonl,
    write_parquet,
)
from tests.helpers.models import sentencepiece_like_tokenizer, tiny_tokenizer

ROOT = Path(__file__).parents[3]
TASK = {"prompt": "{question}\n", "response": "{answer}"}


def prepare(folder: Path, data: dict[str, Any], **options: Any) -> StudyData:
    tokenizer = options.pop("tokenizer", None) or tiny_tokenizer()
    found = prepare_data(study_config(data, **options), folder / "data", tokenizer)
    use_data(folder / "data", found.fingerprint)
    return StudyData.open(folder / "data")


def texts(split: TokenisedSplit | None) -> list[str]:
    assert split is not None
    tokenizer = tiny_tokenizer()
    return [
        tokenizer.decode(split.input_ids(i), skip_special_tokens=True) for i in range(len(split))
    ]


def test_labels_decode_back_to_the_response_and_count_what_carries_loss(tmp_path: Path) -> None:
    rows = task_rows(40)
    train = write_jsonl(tmp_path / "train.jsonl", rows)
    data = prepare(tmp_path, {"train": str(train), **TASK})
    answers = {row["question"]: row["answer"] for row in rows}
    tokenizer = tiny_tokenizer()
    for split in (data.pool, data.validation, data.test):
        for i in range(len(split)):
            labels = split.labels(i)
            question, answer = tokenizer.decode(split.input_ids(i)).split("\n")
            kept = tokenizer.decode(labels[labels != -100])
            assert kept == answer == answers[question] + "</s>"
            assert labels[0] == -100
            assert split.target_counts[i] == (labels[1:] != -100).sum()
            assert split.lengths[i] == len(labels)
    assert data.summary.mean_tokens == pytest.approx(data.pool.lengths.mean())
    assert data.summary.mean_target_tokens == pytest.approx(data.pool.target_counts.mean())


def test_every_format_gives_the_same_arrays(tmp_path: Path) -> None:
    rows = [{**row, "answer": row["answer"] + ' "NA", \n null'} for row in task_rows(30)]
    files = [
        write_jsonl(tmp_path / "a.jsonl", rows),
        write_csv(tmp_path / "a.csv", rows),
        write_csv(tmp_path / "a.tsv", rows, separator="\t"),
        write_parquet(tmp_path / "a.parquet", rows),
        tmp_path / "a.json",
        tmp_path / "a.jsonl.gz",
    ]
    files[4].write_text(json.dumps(rows))
    files[5].write_bytes(gzip.compress(files[0].read_bytes()))
    prints = {
        prepare(tmp_path / str(i), {"train": str(file), **TASK}).summary.fingerprint
        for i, file in enumerate(files)
    }
    assert len(prints) == 1


def test_csv_values_are_text_as_written(tmp_path: Path) -> None:
    rows = [{"a": f"{i}.50", "b": word} for i, word in enumerate(["NA", "null", "007", "x"] * 3)]
    data = prepare(
        tmp_path,
        {"train": str(write_csv(tmp_path / "a.csv", rows)), "prompt": "{a}|", "response": "{b}"},
    )
    assert set(texts(data.pool)) <= {f"{row['a']}|{row['b']}" for row in rows}


def test_plain_text_is_split_at_blank_lines_or_else_at_lines(tmp_path: Path) -> None:
    lines, paragraphs = tmp_path / "lines.txt", tmp_path / "paragraphs.txt"
    lines.write_text("".join(f"line {i}\n" for i in range(10)) + "\n")
    paragraphs.write_text("".join(f"first {i}\nsecond {i}\n\n" for i in range(10)))
    sizes = {"validation_size": 1, "test_size": 1}
    by_line = prepare(tmp_path / "l", {"train": str(lines), **sizes})
    by_paragraph = prepare(tmp_path / "p", {"train": str(paragraphs), **sizes})
    assert len(by_line.pool) == len(by_paragraph.pool) == 8
    assert all(text.startswith("line ") for text in texts(by_line.pool))
    assert all(text.startswith("first") and "second" in text for text in texts(by_paragraph.pool))


def test_globs_lists_and_folders_name_many_files(tmp_path: Path) -> None:
    shards = tmp_path / "shards [v1]"
    shards.mkdir()
    for i in range(3):
        write_jsonl(shards / f"part-{i}.jsonl", text_rows(10, start=10 * i))
    escaped = str(shards).replace("[", "[[]")
    sources = [f"{escaped}/part-*.jsonl", [str(f) for f in sorted(shards.iterdir())], str(shards)]
    prints = {
        prepare(tmp_path / str(i), {"train": s}).summary.fingerprint for i, s in enumerate(sources)
    }
    assert len(prints) == 1


def test_a_folder_of_several_splits_gives_the_one_that_is_looked_for(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    for i, split in enumerate(["train-00000-of-00002", "train-00001-of-00002", "test", "dev"]):
        write_jsonl(folder / f"{split}.jsonl", text_rows(10, start=10 * i))
    (folder / "._train.jsonl").write_bytes(b"\0\5")
    source = str(folder)
    found = prepare(tmp_path / "1", {"train": source, "validation": source, "test": source})
    assert found.summary.rows == {"train": 20, "validation": 10, "test": 10}
    (folder / "train-00001-of-00002.jsonl").unlink()
    with pytest.raises(DataError, match=r"1 of the 2 files .*/train-\*-of-\*\.jsonl are missing"):
        prepare(tmp_path / "2", {"train": source})
    (folder / "train-00000-of-00002.jsonl").rename(folder / "more.jsonl")
    with pytest.raises(DataError, match=r"of several splits, or of another one \(dev\.jsonl, "):
        prepare(tmp_path / "3", {"train": source})


def test_what_is_no_number_is_no_value(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"text": "a", "answer": NaN}\n')
    data = {"train": str(file), "prompt": "{text}", "response": "{answer}"}
    with pytest.raises(DataError, match="row 1: column 'answer' holds no value, not text"):
        prepare(tmp_path, data)
    write_jsonl(file, [{"text": "a", "answer": [{"role": "assistant", "content": "b"}]}])
    with pytest.raises(DataError, match=r"'answer' holds chat messages.* in data\.messages"):
        prepare(tmp_path, data)


def test_characters_that_the_tokenizer_does_not_know_are_counted(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "a.jsonl", [{"text": f"{i} \u0416\u0416"} for i in range(16)])
    data = {"train": str(file), "validation_size": 1, "test_size": 1}
    config = study_config({**data, "text": "text"})
    summary = prepare_data(config, tmp_path / "data", sentencepiece_like_tokenizer())
    (note,) = summary.notes
    assert note.startswith("28 of ") and "training tokens are <unk>" in note


def test_no_duplicate_straddles_splits_and_train_is_the_one_that_loses(tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", [*text_rows(20), *text_rows(3)])
    validation = write_jsonl(tmp_path / "validation.jsonl", text_rows(6, start=15))
    test = write_jsonl(tmp_path / "test.jsonl", text_rows(3, start=18))
    data = prepare(
        tmp_path, {"train": str(train), "validation": str(validation), "test": str(test)}
    )
    # Rows 18 to 20 belong to test, 15 to 17 to validation, and train repeats its first three.
    assert len(data.test) == 3
    assert len(data.validation) == 3
    assert len(data.pool) == 15
    assert data.summary.duplicates_removed == 3 + 5 + 3
    together = [t for split in (data.pool, data.validation, data.test) for t in texts(split)]
    assert len(together) == len(set(together))


def test_cut_splits_are_disjoint_exact_and_complete(tmp_path: Path) -> None:
    rows = [*text_rows(50), *text_rows(50)]
    train = str(write_jsonl(tmp_path / "train.jsonl", rows))
    data = prepare(tmp_path, {"train": train, "validation_size": 0.2, "test_size": 7})
    assert (len(data.pool), len(data.validation), len(data.test)) == (33, 10, 7)
    assert data.summary.duplicates_removed == 50
    together = [t for split in (data.pool, data.validation, data.test) for t in texts(split)]
    assert sorted(together) == sorted({row["text"] for row in rows})
    other_seed = prepare(tmp_path / "seed", {"train": train, "test_size": 7}, seed=1)
    assert texts(other_seed.test) != texts(data.test)


def test_examples_without_a_target_are_dropped_and_long_ones_cut_and_counted(
    tmp_path: Path,
) -> None:
    rows = [*task_rows(20), {"question": "Q", "answer": ""}, {"question": "R", "answer": " \n"}]
    rows.append({"question": "long " * 50, "answer": "yes"})
    train = str(write_jsonl(tmp_path / "train.jsonl", rows))
    data = prepare(tmp_path, {"train": train, **TASK})
    summary = data.summary
    assert (summary.empty_removed, summary.truncated) == (2, 1)
    assert summary.pool + summary.validation + summary.test == 21
    assert max(s.lengths.max() for s in (data.pool, data.validation, data.test)) == 64


PREPARE_IN_ANOTHER_PROCESS = """
import sys
from pathlib import Path
from transformers import PreTrainedTokenizerFast
from study.training.data.prepare import prepare_data
from tests.helpers.data import study_config
train, tokenizer, folder = sys.argv[1:]
config = study_config({"train": train, "prompt": "{question}", "response": "{answer}"})
tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer)
print(prepare_data(config, Path(folder), tokenizer).fingerprint)
"""


def test_processes_agree_also_when_they_prepare_the_same_folder_at_once(tmp_path: Path) -> None:
    train = str(write_jsonl(tmp_path / "train.jsonl", task_rows(300)))
    tokenizer, shared = str(tmp_path / "tokenizer"), str(tmp_path / "shared")
    tiny_tokenizer().save_pretrained(tokenizer)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PREPARE_IN_ANOTHER_PROCESS, train, tokenizer, shared],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    printed = {process.communicate(timeout=300)[0].strip() for process in processes}
    here = prepare(tmp_path, {"train": train, "prompt": "{question}", "response": "{answer}"})
    assert printed == {here.summary.fingerprint}
    versions = [p for p in (tmp_path / "shared").iterdir() if p.is_dir()]
    assert len(versions) == 1
    for file in sorted(versions[0].glob("*.npy")):
        mine = next((tmp_path / "data").glob(f"*/{file.name}"))
        assert file.read_bytes() == mine.read_bytes()


def test_unchanged_data_is_reused_and_changed_data_made_anew(tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", text_rows(30))
    first = prepare(tmp_path, {"train": str(train)})
    stored = next((tmp_path / "data").glob("*/pool.tokens.npy"))
    written = stored.stat().st_mtime_ns
    again = prepare(tmp_path, {"train": str(train)})
    assert again.summary == first.summary
    assert stored.stat().st_mtime_ns == written

    write_jsonl(train, text_rows(31))
    changed = prepare(tmp_path, {"train": str(train)})
    assert changed.summary.fingerprint != first.summary.fingerprint
    assert not stored.exists()
    for options in ({"sequence_length": 32}, {"seed": 3}):
        version = next((tmp_path / "data").glob("*/pool.tokens.npy")).parent
        prepare(tmp_path, {"train": str(train)}, **options)
        assert not version.exists()
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["text"])
    other = prepare(tmp_path, {"train": str(train)}, tokenizer=tokenizer)
    assert other.pool.lengths.mean() < changed.pool.lengths.mean()


def test_before_a_study_has_begun_its_data_are_those_looked_at_last(tmp_path: Path) -> None:
    train, folder = write_jsonl(tmp_path / "train.jsonl", text_rows(30)), tmp_path / "data"
    for length in (48, 32, 48):
        config = study_config({"train": str(train)}, sequence_length=length)
        summary = prepare_data(config, folder, tiny_tokenizer())
        assert StudyData.open(folder).summary == summary
        time.sleep(0.01)  # a file system's clock


def test_data_that_are_only_looked_at_leave_those_of_the_study_alone(tmp_path: Path) -> None:
    train, folder = write_jsonl(tmp_path / "train.jsonl", text_rows(30)), tmp_path / "data"
    own = prepare(tmp_path, {"train": str(train)}).summary
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/*")}
    (folder / "mine").mkdir()
    (folder / "mine" / "train.jsonl").write_text("mine")

    def look(sequence_length: int) -> DataSummary:
        config = study_config({"train": str(train)}, sequence_length=sequence_length)
        return prepare_data(config, folder, tiny_tokenizer())

    other = look(48)
    assert StudyData.open(folder).summary == own
    assert StudyData.open(folder, other.fingerprint).summary == other != own
    assert {path: path.stat().st_mtime_ns for path in before} == before
    written = {path: path.stat().st_mtime_ns for path in folder.glob("*/*")}
    assert look(48) == other
    assert {path: path.stat().st_mtime_ns for path in folder.glob("*/*")} == written

    # What nobody looks at any more goes; what a study runs on does not, however old it is.
    for path in folder.glob("*/"):
        os.utime(path, (0, 0))
    look(32)
    assert StudyData.open(folder).summary == own
    with pytest.raises(OtherDataError):
        StudyData.open(folder, other.fingerprint)
    use_data(folder, look(32).fingerprint)
    with pytest.raises(OtherDataError, match="other data are here than those that the study was"):
        StudyData.open(folder, own.fingerprint)
    assert (folder / "mine" / "train.jsonl").read_text() == "mine"


@pytest.mark.parametrize("room", [1_000, 60_000], ids=["while reading", "while storing"])
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, room: int) -> None:
    # About 25 kB of text, 100 kB of tokens; a file size limit stands for the full disk.
    train = write_jsonl(tmp_path / "train.jsonl", text_rows(1000))
    small = str(write_jsonl(tmp_path / "small.jsonl", text_rows(20)))
    before = prepare(tmp_path, {"train": small})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(DataError, match=r"cannot write the tokenised data .* Free disk space"):
            prepare(tmp_path, {"train": str(train)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert StudyData.open(tmp_path / "data").summary == before.summary
    assert len([p for p in (tmp_path / "data").iterdir() if p.is_dir()]) == 1


def test_reading_back_imports_neither_datasets_nor_torch(tmp_path: Path) -> None:
    prepare(tmp_path, {"train": str(write_jsonl(tmp_path / "train.jsonl", text_rows(30)))})
    code = (
        "import sys, study.training.data.batches; from pathlib import Path; "
        "from study.training.data.tokenised import StudyData; "
        "data = StudyData.open(Path(sys.argv[1])); "
        "assert len(data.pool) == 24 and type(data.pool.tokens).__name__ == 'memmap'; "
        "assert not {'datasets', 'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "data")], cwd=ROOT, check=True)


def test_retention_is_the_shipped_text_a_file_or_not_measured(tmp_path: Path) -> None:
    train = str(write_jsonl(tmp_path / "train.jsonl", task_rows(30)))
    own = str(write_jsonl(tmp_path / "own.jsonl", [{"body": f"general {i}"} for i in range(9)]))
    general = prepare(tmp_path / "g", {"train": train, **TASK, "retention": "general"})
    shipped = [json.loads(line)["text"] for line in GENERAL_TEXT.read_text().splitlines()]
    assert general.retention is not None and len(general.retention) == 200
    assert general.summary.rows == {"train": 30, "retention": len(shipped)}
    # Its cuts are told apart from those of the task's own examples.
    assert general.summary.cut == {"retention": general.summary.truncated}
    assert all(any(s.startswith(t) for s in shipped) for t in texts(general.retention))
    assert (general.retention.target_counts == general.retention.lengths - 1).all()

    given = {"train": train, **TASK, "retention": own, "retention_text": "body"}
    few = prepare(tmp_path / "f", {**given, "retention_size": 4})
    assert len(texts(few.retention)) == 4
    assert set(texts(few.retention)) < {f"general {i}" for i in range(9)}
    assert prepare(tmp_path / "n", {"train": train, **TASK}).retention is None


CHATML = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def test_chat_has_loss_on_the_last_assistant_message_only(tmp_path: Path) -> None:
    rows = [
        {
            "messages": [
                {"role": "system", "content": "Be short."},
                {"role": "user", "content": f"Question {i}"},
                {"role": "assistant", "content": "Which?"},
                {"role": "user", "content": "That."},
                {"role": "assistant", "content": f"Answer {i}"},
                {"role": "user", "content": "Thanks"},
            ][: 6 if i % 2 else 5]
        }
        for i in range(20)
    ]
    train = str(write_jsonl(tmp_path / "train.jsonl", rows))
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CHATML
    data = prepare(
        tmp_path, {"train": train, "messages": "messages"}, tokenizer=tokenizer, sequence_length=256
    )
    for i in range(len(data.pool)):
        labels = data.pool.labels(i)
        whole = tokenizer.decode(data.pool.input_ids(i))
        number = whole.split("Question ")[1].split("<")[0]
        assert tokenizer.decode(labels[labels != -100]) == f"Answer {number}<|end|>\n"
        assert whole.endswith(f"That.<|end|>\n<|assistant|>Answer {number}<|end|>\n")


LABELS = {"text": "text", "label": "kind"}


def test_label_names_get_ids_in_sorted_order(tmp_path: Path) -> None:
    train = str(write_jsonl(tmp_path / "train.jsonl", labelled_rows(60)))
    data = prepare(tmp_path, {"train": train, **LABELS}, task="sequence-classification")
    assert data.summary.label_names == ("apple", "fig", "pear")
    assert data.num_labels == 3 and data.retention is None
    expected = {row["text"]: row["kind"] for row in labelled_rows(60)}
    for i, text in enumerate(texts(data.pool)):
        assert data.summary.label_names[data.pool.label(i)] == expected[text]


def test_integer_labels_stay_as_they_are_also_from_csv(tmp_path: Path) -> None:
    rows = [{"text": f"t {i}", "kind": (0, 2, 10)[i % 3]} for i in range(60)]
    for name, file in (
        ("j", write_jsonl(tmp_path / "a.jsonl", rows)),
        ("c", write_csv(tmp_path / "a.csv", rows)),
    ):
        given = {"train": str(file), **LABELS}
        data = prepare(tmp_path / name, given, task="sequence-classification")
        assert data.num_labels == 11
        expected = {str(row["text"]): row["kind"] for row in rows}
        assert [expected[t] for t in texts(data.pool)] == data.pool.targets.tolist()


def test_declared_class_names_keep_their_order(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "kind": datasets.ClassLabel(names=["pos", "neg"])}
    )
    columns = {"text": [f"t {i}" for i in range(20)], "kind": [i % 2 for i in range(20)]}
    file = tmp_path / "a.parquet"
    datasets.Dataset.from_dict(columns, features=features).to_parquet(file)
    test = write_jsonl(tmp_path / "test.jsonl", [{"text": "x", "kind": "neg"}])
    given = {"train": str(file), "test": str(test), **LABELS}
    data = prepare(tmp_path, given, task="sequence-classification")
    assert data.summary.label_names == ("pos", "neg")
    assert data.test.label(0) == 1
    assert [int(t[2:]) % 2 for t in texts(data.pool)] == data.pool.targets.tolist()


def test_class_prior_losses_match_a_hand_computed_prior() -> None:
    def split(labels: list[int]) -> TokenisedSplit:
        count = len(labels)
        arrays = np.zeros(count, np.int32), np.arange(count + 1), np.array(labels, np.int32)
        return TokenisedSplit(*arrays, num_labels=3, sequence_length=8)

    losses = class_prior_losses(split([0, 0, 0, 1]), split([1, 0, 2]))
    assert losses == pytest.approx([math.log(7 / 2), math.log(7 / 4), math.log(7)])


def test_sizes_beyond_the_pool_name_it(tmp_path: Path) -> None:
    train = str(write_jsonl(tmp_path / "train.jsonl", text_rows(30)))
    config = study_config({"train": train}, dataset_sizes=[8, 24, 25, 100])
    summary = prepare_data(config, tmp_path / "data", tiny_tokenizer())
    with pytest.raises(DataError, match=r"dataset_sizes: 25, 100 exceed the 24 training examples"):
        check_sizes(config, summary)
    check_sizes(study_config({"train": train}, dataset_sizes=[24]), summary)


def test_of_very_many_rows_some_are_drawn(tmp_path: Path) -> None:
    train = str(write_jsonl(tmp_path / "train.jsonl", task_rows(300)))
    given = {"train": train, **TASK, "max_train_samples": 100}
    data = prepare(tmp_path, given)
    assert data.summary.rows["train"] == 100 and data.summary.not_drawn["train"] == 200
    assert data.summary.pool + data.summary.validation + data.summary.test == 100
    numbers = [int(text.split()[2]) for text in texts(data.pool)]
    assert numbers == sorted(numbers) and max(numbers) > 200  # the file's order, all over the file
    other = prepare(tmp_path / "other", given, seed=1)
    assert [int(text.split()[2]) for text in texts(other.pool)] != numbers
    few = dataclasses.replace(data.summary, max_train_samples=50)
    config = study_config({"train": train, **TASK})
    again = prepare_data(config, tmp_path / "data", tiny_tokenizer(), known=few)
    assert again.rows["train"] == 50  # a study goes on with what it began with
    assert prepare_data(config, tmp_path / "data", tiny_tokenizer()).not_drawn == {}


def test_every_row_is_as_likely_to_be_drawn() -> None:
    counts = np.zeros(30)
    for seed in range(600):
        draw = Draw(10, (seed,))
        rows = list(draw.of(i for i in range(30) if draw.wanted()))
        assert len(rows) == 10 and draw.left == 20 and rows == sorted(rows)
        counts[rows] += 1
    assert chisquare(counts).pvalue > 1e-4
