"""Answers from past studies: right where there is evidence, declined with the nearest elsewhere."""

from __future__ import annotations

import dataclasses
import gzip
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from study.analysis import plan_gates
from study.analysis.summary import summarise
from study.basics.errors import UserError
from study.basics.fingerprints import files_fingerprint, model_fingerprint
from study.basics.remote import RemoteFolder
from study.cli.recommend import recommend_and_print
from study.config.load import parse_config
from study.protocol.results import StudyResults
from study.reuse import best_configuration
from study.reuse.identity import Asked
from study.reuse.past_studies import find_studies
from study.reuse.recommend import Declined, Recommendation, recommend
from tests.helpers.models import write_model
from tests.helpers.results import make_config
from tests.helpers.stores import finished_study, write_store


@dataclasses.dataclass(frozen=True)
class Here:
    """A machine with a model, data, and a study of both.

    Attributes:
        results: LIFT is better by 0.1 nats at every size.
    """

    root: Path
    model: str
    data: str
    results: StudyResults

    def publish(self, name: str = "first", **changes: object) -> str:
        """The place of a study that differs from `results` in this."""
        config = self.results.config.model_copy(update={"name": name})
        results = dataclasses.replace(self.results, **({"config": config} | changes))  # type: ignore[arg-type]
        url = (self.root / "published" / name).as_uri()
        content = gzip.compress(json.dumps(results.to_dict()).encode())
        RemoteFolder(url).write("results.json.gz", content)
        return url

    def ask(self, *places: str, size: int = 700, **asked: object) -> Recommendation | Declined:
        return recommend(Asked(**({"model": self.model, "dataset_size": size} | asked)), places)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Here:
    root = tmp_path_factory.mktemp("here")
    model = write_model(root / "model")
    data = root / "train.jsonl"
    data.write_text('{"signature": "a", "body": "b"}\n')
    results = finished_study(
        model=model_fingerprint(str(model)) or "", train=files_fingerprint([data])
    )
    return Here(root, str(model), str(data), results)


def declined(found: Recommendation | Declined) -> Declined:
    assert isinstance(found, Declined)
    return found


def answered(found: Recommendation | Declined) -> Recommendation:
    assert isinstance(found, Recommendation)
    return found


# Answers


def test_the_answer_is_the_verdict_and_the_configuration_of_the_study(here: Here) -> None:
    found = answered(here.ask(here.publish()))
    report = summarise(here.results, (700,)).verdicts[0]
    assert found.verdict == report
    assert (report.answer, report.arm) == ("better", "lift")
    best = best_configuration(here.results, "lift", 700)
    assert found.best.hyperparameters == best.hyperparameters
    assert found.best.file.to_dict()["run"] == best.file.to_dict()["run"]
    assert found.best.dataset_size == 700
    assert "Taken to be the task" in found.notes[0]


@pytest.mark.parametrize("size", [250, 2000, 170, 2900])
def test_it_answers_as_far_as_a_verdict_reaches(here: Here, size: int) -> None:
    assert answered(here.ask(here.publish(), size=size)).verdict.arm == "lift"


def test_data_and_task_that_are_the_study_s_need_no_assumption(here: Here) -> None:
    place = here.publish()
    assert answered(here.ask(place, data=(here.data,), task="causal-lm")).notes == ()
    assert answered(here.ask(place, task="first")).notes == ()


def test_a_memory_limit_is_asked_about(here: Here) -> None:
    found = answered(here.ask(here.publish(), memory_limit_gib=100.0))
    assert found.verdict.memory_limit_gib == 100.0


def test_of_several_studies_the_one_around_the_size_answers_and_others_are_compared(
    here: Here,
) -> None:
    far = finished_study(
        sizes=(8, 16, 32, 64), gap=-0.1, name="far",
        model=here.results.model_fingerprint, train=here.results.train_fingerprint,
    )  # fmt: skip
    places = here.publish(), here.publish("far", **vars_of(far))
    found = answered(here.ask(*places))
    assert found.judged.study.name == "first"
    assert [other.study.name for other in found.others] == ["far"]
    there = answered(here.ask(*places, size=40))
    assert (there.judged.study.name, there.verdict.arm) == ("far", "full")


def test_of_equal_studies_the_newest_answers(here: Here) -> None:
    newer = finished_study(
        gap=-0.1, finished=1_770_000_000.0,
        model=here.results.model_fingerprint, train=here.results.train_fingerprint,
    )  # fmt: skip
    found = answered(here.ask(here.publish(), here.publish("newer", trials=newer.trials)))
    assert (found.judged.study.name, found.verdict.arm) == ("newer", "full")
    assert [other.verdict.arm for other in found.others if other.verdict] == ["lift"]


def vars_of(results: StudyResults) -> dict[str, object]:
    return {f.name: getattr(results, f.name) for f in dataclasses.fields(results)}


# Declined


def test_another_model_is_declined(here: Here, tmp_path: Path) -> None:
    other = write_model(tmp_path / "other", seed=1)
    found = declined(here.ask(here.publish(), model=str(other)))
    assert "no study here is about the model" in found.reason
    (near,) = found.nearest
    assert near.study.name == "first"
    assert "another model, models/tiny-llama; sizes 250, 500, 1,000, 2,000" in near.differs
    assert found.smallest is not None
    config = parse_config(yaml.safe_load(found.smallest.text))
    assert config.model.path == str(other)
    assert all(gate.status == "pass" for gate in plan_gates(config, 700))
    assert found.smallest.trials == 2 * len(config.dataset_sizes) * config.search.replicates * (
        config.search.trials + config.confirm.seeds
    )
    assert not found.smallest.assumed


def test_other_data_are_declined(here: Here, tmp_path: Path) -> None:
    other = tmp_path / "train.jsonl"
    other.write_text('{"signature": "a", "body": "c"}\n')
    found = declined(here.ask(here.publish(), data=(str(other),)))
    assert "this task" in found.reason
    assert "other data" in found.nearest[0].differs
    assert found.smallest is not None
    assert parse_config(yaml.safe_load(found.smallest.text)).data.train == str(other)


def test_another_kind_of_task_is_declined(here: Here) -> None:
    found = declined(here.ask(here.publish(), task="sequence-classification"))
    assert "another task, causal-lm" in found.nearest[0].differs
    assert found.smallest is not None
    assert "label: label" in found.smallest.text


@pytest.mark.parametrize("size", [100, 3100, 100_000])
def test_a_size_far_outside_is_declined_with_the_runs_that_would_answer(
    here: Here, size: int
) -> None:
    found = declined(here.ask(here.publish(), size=size))
    assert "far outside of what was tested" in found.reason
    assert "sizes 250 to 2,000" in found.reason
    assert any(str(size) in runs.change for runs in found.next_runs)


def test_a_difference_that_is_not_there_is_declined(here: Here) -> None:
    equal = finished_study(gap=0.0)
    found = declined(here.ask(here.publish("equal", trials=equal.trials)))
    assert "study equal" in found.reason
    assert found.verdict is not None and not found.verdict.is_claim


def test_one_arm_is_no_verdict(here: Here) -> None:
    config = make_config(arms=["full"], sizes=(250, 500, 1000, 2000), trials=3, name="one")
    full = tuple(t for t in here.results.trials if t.spec.arm == "full")
    found = declined(here.ask(here.publish("one", config=config, trials=full)))
    assert "ran full alone" in found.reason
    assert found.smallest is not None
    assert parse_config(yaml.safe_load(found.smallest.text)).arms.names == ("full", "lift")


def test_several_tasks_are_listed_and_one_can_be_named(here: Here) -> None:
    places = here.publish(), here.publish("second", train_fingerprint="files-1:other")
    found = declined(here.ask(*places))
    assert "several tasks" in found.reason
    assert {near.study.name for near in found.nearest} == {"first", "second"}
    assert answered(here.ask(*places, task="second")).judged.study.name == "second"
    assert answered(here.ask(*places, data=(here.data,))).judged.study.name == "first"


def test_without_any_study_a_new_one_is_proposed(here: Here, tmp_path: Path) -> None:
    found = declined(here.ask(str(tmp_path)))
    assert found.nearest == ()
    assert found.smallest is not None and found.smallest.assumed
    assert parse_config(yaml.safe_load(found.smallest.text)).dataset_sizes[-1] == 700


# Identity of older records, and of models that are not here


def test_older_records_are_compared_by_path_and_that_is_said(here: Here) -> None:
    config = here.results.config
    paths = {
        "model": config.model.model_copy(update={"path": here.model}),
        "data": config.data.model_copy(update={"train": here.data}),
    }
    older = {
        "config": config.model_copy(update=paths),
        "model_fingerprint": None,
        "train_fingerprint": None,
    }
    place = here.publish("older", **older)
    found = answered(here.ask(place, data=(here.data,)))
    assert len(found.notes) == 2
    assert all("alone" in note for note in found.notes)
    assert "another model" in declined(here.ask(place, model="owner/name")).nearest[0].differs


def test_a_hub_model_that_is_not_in_the_cache_is_compared_by_name(
    here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    place = here.publish("hub", model_fingerprint=f"hub:owner/name@{'a' * 40}")
    found = answered(here.ask(place, model="owner/name"))
    assert "owner/name is not in this machine's cache" in found.notes[-1]
    assert answered(here.ask(place, model=f"owner/name@{'a' * 40}")).verdict.arm == "lift"
    other = declined(here.ask(place, model=f"owner/name@{'b' * 40}"))
    assert "another revision of" in other.nearest[0].differs
    assert isinstance(here.ask(place, model="owner/another"), Declined)


# Questions that cannot be asked


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"model": "/no/such/model"}, "--model /no/such/model: there is no such model folder"),
        ({"task": "summarise"}, "--task summarise: is neither a task nor a study here"),
        ({"data": ("/no/such.jsonl",)}, "--data: /no/such.jsonl does not exist"),
    ],
)
def test_a_question_about_what_is_not_there_is_refused(
    here: Here, asked: dict[str, object], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        here.ask(here.publish(), **asked)


def test_a_place_that_is_not_there_is_refused(here: Here) -> None:
    with pytest.raises(UserError, match="--studies /no/such/place: there is no such folder"):
        here.ask("/no/such/place")


def test_what_cannot_be_read_below_a_folder_is_told_and_left_out(tmp_path: Path) -> None:
    for name in ("a/results/x", ".hidden/y"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "study.db").write_bytes(b"damaged" * 100)
    studies, trouble = find_studies([str(tmp_path)])
    assert studies == []
    assert len(trouble) == 1 and "a/results/x" in trouble[0]


# The command


def printed(here: Here, capsys: pytest.CaptureFixture[str], size: int, as_json: bool) -> str:
    code = recommend_and_print(Asked(here.model, size), [here.publish()], as_json)
    assert code == (0 if size == 700 else 3)
    return capsys.readouterr().out


def test_the_answer_in_words(here: Here, capsys: pytest.CaptureFixture[str]) -> None:
    said = printed(here, capsys, 700, False)
    assert said.startswith("Use LIFT for 700 training examples: its test loss is lower by more")
    assert f"study best {here.publish()} --arm lift --dataset-size 700 --output best.yaml" in said
    assert "study train best.yaml" in said


def test_the_answer_for_programs(here: Here, capsys: pytest.CaptureFixture[str]) -> None:
    told = json.loads(printed(here, capsys, 700, True))
    assert told["answer"] == told["verdict"]["arm"] == told["configuration"]["arm"] == "lift"
    assert told["verdict"]["confidence"] == 0.99
    assert told["study"]["dataset_sizes"] == [250, 500, 1000, 2000]
    assert told["commands"][1] == "study train best.yaml"


def test_no_answer_in_words_and_for_programs(
    here: Here, capsys: pytest.CaptureFixture[str]
) -> None:
    said = " ".join(printed(here, capsys, 9000, False).split())
    assert said.startswith("No answer: 9,000 examples are far outside of what was tested")
    assert "Not met: Asked size. 9,000, far outside of 250 to 2,000." in said
    assert "What would answer, in the file of study first: dataset_sizes: [250," in said
    told = json.loads(printed(here, capsys, 9000, True))
    assert told["answer"] is None
    assert told["nearest"][0]["dataset_sizes"] == [250, 500, 1000, 2000]
    assert told["next_runs"][0]["trials"] > 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--dataset-size", "9000"], 3),
        (["--dataset-size", "700", "--format", "xml"], 2),
        (["--dataset-size", "700", "--studies", "/no/such"], 2),
    ],
)
def test_scripts_can_tell_no_answer_from_a_bad_question(
    here: Here, arguments: list[str], code: int
) -> None:
    place = [] if "--studies" in arguments else ["--studies", here.publish()]
    run = [sys.executable, "-m", "study", "recommend", "--model", here.model, *arguments, *place]
    ran = subprocess.run(run, capture_output=True, text=True)
    assert ran.returncode == code, ran.stderr
    assert "Traceback" not in ran.stderr


def test_studies_of_one_name_that_ran_at_one_path_elsewhere_are_two(tmp_path: Path) -> None:
    """Copied from two machines; what their files say of the place is the same."""
    results = finished_study(
        make_config(sizes=(30,), trials=2, storage={"results": str(tmp_path / "ran")})
    )
    write_store(results)
    for name in ("a", "b"):
        shutil.copytree(tmp_path / "ran", tmp_path / "past" / name)
    found, trouble = find_studies([str(tmp_path / "past")])
    assert [Path(study.place).name for study in found] == ["a", "b"] and not trouble
    again, _ = find_studies([str(tmp_path / "past"), str(tmp_path / "past" / "a")])
    assert len(again) == 2
