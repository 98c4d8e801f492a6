"""What `study plan` says of the rows it read, and the examples it shows."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import yaml
from transformers import AutoTokenizer

from study.cli.data import data_facts
from study.cli.output import Console
from study.cli.samples import ShownExample, decoded, print_examples
from study.protocol.records import DataSummary
from tests.helpers.commands import study, too_wide
from tests.helpers.data import labelled_rows, task_rows, write_jsonl
from tests.helpers.models import sentencepiece_like_tokenizer

SUMMARY = ("9f86d081884c7d65", 9000, 400, 2000, 200, 1, 3, 5, 92.4, 61.8)


def printed(*examples: ShownExample) -> str:
    console = Console(io.StringIO())
    console.width = 80
    print_examples(console, examples, 9000)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= 80
    return str(text)


def plan_of(project: Path, data: dict[str, object], *options: str, **changes: object) -> str:
    """What is printed before the cells."""
    settings = yaml.safe_load((project / "study.yaml").read_text()) | changes
    settings["data"] = {"retention": None, "test_size": 10, "validation_size": 10} | data
    settings["dataset_sizes"] = [24, 48]
    name = str(settings["name"])
    (project / f"{name}.yaml").write_text(yaml.safe_dump(settings))
    done = study("plan", f"{name}.yaml", *options, cwd=project)
    assert done.returncode == 0, done.stderr
    assert too_wide(done.stdout, project) == []
    return done.stdout.partition("\narm ")[0]


def test_plan_says_what_became_of_every_row_and_shows_what_is_trained_on(project: Path) -> None:
    rows = task_rows(100)
    rows[0] = {"question": "Long? " * 30, "answer": " Yes."}
    more = [*rows[20:23], {"question": "What?", "answer": " "}]
    data: dict[str, object] = {"prompt": "{question}", "response": "{answer}"}
    for split, given in {
        "train": rows + more,
        "validation": task_rows(10, start=600),
        "test": task_rows(20, start=500),
    }.items():
        data[split] = str(write_jsonl(project / f"{split}.jsonl", given))
    text = plan_of(project, data, "--examples", "3", name="shown")
    told = " ".join(text.split())
    assert (
        "Rows read 104 of data.train, 10 of data.validation and 20 of data.test; kept 130" in told
    )
    assert "Dropped 3 (duplicate), 1 (empty answer) Cut" in told
    assert "Cut 1 example to 64 tokens: 1 lost the beginning of the prompt" in told

    # What plain transformers makes of the rows.
    tokenizer = AutoTokenizer.from_pretrained(project / "tiny-llama-0")
    whole = [row["question"] + row["answer"] + tokenizer.eos_token for row in rows[:100]]
    lengths = sorted(len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in whole)
    spread = "median {}, 95th percentile {}, longest {} tokens"
    uncut = spread.format(lengths[49], lengths[94], lengths[-1])
    assert f"Lengths {uncut}; after cutting median {lengths[49]}" in told
    assert f"95th percentile {lengths[94]}, longest 64" in told

    first, second, third = (
        re.sub(r"\n +", "", part) for part in re.split(r"\n\nExample \d of 100: ", text)[1:]
    )
    assert first.startswith("64 tokens, 6 with loss, between [[ and ]]")
    assert first.endswith("Long? [[ Yes.</s>]]")
    for shown, row in ((second, rows[1]), (third, rows[2])):
        assert shown.rstrip().endswith(f"{row['question']}[[{row['answer']}</s>]]")


def test_plan_counts_a_classifiers_classes_and_shows_texts_with_their_labels(
    project: Path,
) -> None:
    write_jsonl(project / "labels.jsonl", labelled_rows(92))
    data = {"train": "labels.jsonl", "text": "text", "label": "kind"}
    task = {"name": "classes", "task": "sequence-classification"}
    text = plan_of(project, data, **task)
    counts = [int(n) for n in re.findall(r"(?:apple \(0\)|fig \(1\)|pear \(2\)): (\d+)", text)]
    assert len(counts) == 3 and sum(counts) == 72 and min(counts) > 15
    shown = re.findall(r"Example \d of 72: \d+ tokens, class (\w+) \(\d\)\n  (.*)", text)
    assert len(shown) == 2, "two, if nothing else is asked for"
    kinds = {row["text"]: row["kind"] for row in labelled_rows(92)}
    assert all(kinds[example.strip()] == label for label, example in shown)
    assert "Example" not in plan_of(project, data, "--examples", "0", **task)


def test_no_negative_number_of_examples(tmp_path: Path) -> None:
    done = study("plan", "--examples", "-1", cwd=tmp_path)
    assert done.returncode == 2 and "--examples" in done.stderr


def test_a_long_example_is_shown_from_both_sides_of_every_mark() -> None:
    prompt = "begin " + "filler " * 5000 + "ask:"
    answer = "Answer\n" + "line\n" * 500 + "last"
    text = printed(ShownExample(((prompt, False), (answer, True), ("\nend", False)), 9000, 600))
    assert len(text.splitlines()) < 40
    assert "begin filler" in text and "ask:[[Answer\n" in text and "last]]\n" in text
    left_out = re.findall(r"<\.\.\.\s+([\d,]+)\s+characters\s+\.\.\.>", text)
    of_prompt, of_answer = (int(number.replace(",", "")) for number in left_out)
    assert of_prompt == len(prompt) - 600 and 2000 < of_answer < len(answer)

    turns = tuple((f"<{n}>", bool(n % 2)) for n in range(100))
    text = printed(ShownExample(turns, 9000, 600))
    assert "<0>[[<1>]]" in text and "<98>[[<99>]]" in text and "<... 92 parts ...>" in text


def test_text_of_the_data_cannot_pass_for_a_mark_or_command_a_terminal() -> None:
    text = printed(
        ShownExample((("a]] [[b", False), ("\x1b[2Jx\r\x00\u202e " + "\x07" * 60, True)), 20, 9)
    )
    assert "between [[[ and ]]]" in text and "a]] [[b[[[\\x1b[2Jx\\r\\x00\\u202e" in text
    assert not set(text) & set("\x1b\r\x00\u202e\x07")
    assert text.replace("\n  ", "").count("\\x07") == 60


def test_a_space_at_the_beginning_of_an_answer_is_seen() -> None:
    """A SentencePiece tokenizer decodes it to nothing if the answer is decoded alone."""
    tokenizer = sentencepiece_like_tokenizer()
    ids = np.array(tokenizer("Say it: four")["input_ids"] + [tokenizer.eos_token_id])
    context = len(tokenizer("Say it:")["input_ids"])
    parts = [(ids[:context], False), (ids[context:], True)]
    assert [text for text, _ in decoded(tokenizer, parts)] == ["<s> Say it:", " four</s>"]


def test_of_many_classes_the_most_and_the_least_frequent_are_told() -> None:
    names = tuple(f"class\n{n}" for n in range(77))
    counts = tuple(range(200, 123, -1))
    facts = data_facts(DataSummary(*SUMMARY, names, counts), 64)
    assert "class\\n0 (0): 200" in facts["Classes"] and "class\\n76 (76): 124" in facts["Classes"]
    assert "57 more" in facts["Classes"] and len(facts["Classes"]) < 700


def test_a_record_from_before_rows_and_lengths_were_on_it_is_still_told() -> None:
    new = ("rows", "lengths", "uncut_lengths")
    known = DataSummary(*SUMMARY, rows={"train": 11609}, lengths=(9, 64), uncut_lengths=(9, 99))
    old = {name: value for name, value in known.to_dict().items() if name not in new}
    facts = data_facts(DataSummary.from_dict(old), 64)
    assert facts["Dropped"] == "1 (duplicate), 5 (empty)" and facts["Cut"].startswith("3 examples")
    assert "Rows" not in facts and "Lengths" not in facts
