"""Un-tuned arms: what the model is asked, and which rows that is made of."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner import arms
from runner.arms import Arm, choose_examples, describe_answers, draw_rows, make_arms, sampling_of
from runner.backends.base import Endpoint
from runner.conversation import Example, Message
from runner.data.prepare import Dataset
from runner.errors import Exit, RunnerError
from runner.manifest import load_manifest
from runner.plan import OtherModel, Plan
from tests.fakes import SMALL, make_dataset, make_test_plan, question

SCHEMA = {"type": "object", "properties": {"order": {"type": "string"}}}
ALL = ("zero_shot", "instruction", "few_shot", "nearest")


def rows(part: str, num_rows: int, answer: str = "answer {i}", system: str | None = "Be brief.") -> tuple[Example, ...]:
    return tuple(
        question(f"{part} question {i}", f"{part} {answer.format(i=i)}", system=system, source=f"{part}.jsonl:{i + 1}")
        for i in range(num_rows)
    )


def dataset(own: Sequence[Example] = rows("own", 20), **changes: Any) -> Dataset:
    parts = {"train": (*own, *rows("general", 5)), "dev": rows("dev", 12), "test": rows("test", 12)}
    return make_dataset(**{**parts, "own": own, **changes})


def named(plan: Plan | None = None, data: Dataset | None = None, schema: Any = None) -> dict[str, Arm]:
    return {arm.name: arm for arm in make_arms(plan or make_test_plan(), data or dataset(), schema)}


def texts(prompt: Sequence[Message]) -> list[str]:
    return [f"{turn.role}: {turn.content}" for turn in prompt]


def with_tokens(data: Dataset, **changes: int) -> Dataset:
    return replace(data, tokens=replace(data.tokens, **changes))


def in_context(tokens: int | None, *overrides: str) -> Plan:
    return make_test_plan("eval.max_new_tokens=50", *overrides, facts=replace(SMALL, context_tokens=tokens))


def test_prompts_are_made_of_the_row_and_of_own_training_rows_alone() -> None:
    data = dataset()
    for arm in named(data=data).values():
        for row in data.dev:
            prompt = arm.prompt(row)
            assert prompt[-1] == row.prompt[-1], "the question comes last"
            assert all(turn.content.startswith(("own", "Be brief.")) for turn in prompt[:-1]), arm.name
            assert row.expected not in "\n".join(texts(prompt))


def test_the_zero_shot_prompt_is_the_persons_own() -> None:
    row = question("q", "a", system="Be brief.")
    assert named()["zero_shot"].prompt(row) == row.prompt


@pytest.mark.parametrize("most", [50_000, 7])
def test_the_order_of_training_rows_changes_no_prompt(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setattr(arms, "MAX_EXAMPLES", most)
    own = rows("own", 40)
    seen = set()
    for seed in range(4):
        shuffled = random.Random(seed).sample(own, len(own))
        made = named(data=dataset(tuple(shuffled)))
        seen.add(json.dumps([[texts(made[name].prompt(row)) for name in ALL] for row in rows("dev", 6)]))
    assert len(seen) == 1


def test_another_seed_shows_other_examples() -> None:
    row = question("q", "a")
    seen = {tuple(texts(named(make_test_plan(f"seed={seed}"))["few_shot"].prompt(row))) for seed in range(4)}
    assert len(seen) > 1


def test_a_row_that_stands_twice_in_the_data_stands_once_in_a_prompt() -> None:
    copies = tuple(replace(row, source=f"copy.jsonl:{i}") for i in range(9) for row in rows("own", 1))
    made = named(data=dataset((*copies, *rows("own", 2))))
    for name in ("few_shot", "nearest"):
        prompt = texts(made[name].prompt(question("question", "")))
        assert len(prompt) == len(set(prompt)) == 5, name


def test_a_row_that_was_cut_short_is_no_example() -> None:
    cut = question("own question 3", "own ans", system="Be brief.")
    cut = replace(cut, messages=(*cut.prompt, replace(cut.messages[-1], complete=False)))
    made = named(data=dataset((cut, *rows("own", 3))))
    for name in ("few_shot", "nearest"):
        assert not [turn for turn in made[name].prompt(question("own question 3", "")) if turn.content == "own ans"]


def test_arms_come_in_one_order_whatever_the_manifests() -> None:
    models = (OtherModel(name="large", endpoint=Endpoint(base_url="http://h/v1", model="org/large"), constrained=True),)
    plan = make_test_plan("gate.arms=[nearest, few_shot, zero_shot]")
    made = make_arms(replace(plan, gate=replace(plan.gate, models=models)), dataset(), None)
    assert [(arm.name, arm.kind) for arm in made] == [
        ("zero_shot", "prompting"),
        ("few_shot", "prompting"),
        ("nearest", "retrieval"),
        ("large", "model"),
    ]
    assert made[-1].prompt(row := question("q", "a")) == row.prompt
    assert "org/large" in made[-1].description and "eval.json_schema" in made[-1].description


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("few_shot", "Two arms are called 'few_shot'."),
        ("Tuned", "The arm 'Tuned' has the file name of another."),
        ("judge-test", "The arm 'judge-test' has the file name of another."),
        ("a/b", "The arm 'a-b' has the file name of another."),
        ("a-b", "Two arms are called 'a-b'."),
        ("a_b", None),
    ],
)
def test_a_model_may_not_be_called_as_another_arm_nor_as_its_file(tmp_path: Path, name: str, told: str | None) -> None:
    models = [{"name": one, "endpoint": {"base_url": "http://h/v1", "model": "m"}} for one in (name, "a-b")]
    asked = {"train": "rows.jsonl"}, {"kind": "lora", "model": "m"}, {"task": "format", "models": models}
    path = tmp_path / "manifest.yaml"
    path.write_text(json.dumps({"name": "x", **dict(zip(("data", "approach", "gate"), asked, strict=True))}))
    if told is None:
        load_manifest(path)
        return
    with pytest.raises(RunnerError) as caught:
        load_manifest(path)
    assert caught.value.exit_code == Exit.MANIFEST
    assert [(p.code, p.what) for p in caught.value.problems] == [("gate/model-name", told)]


class TestInstruction:
    def test_it_stands_behind_the_persons_own_system_prompt(self) -> None:
        (system, asked) = named()["instruction"].prompt(question("q", "a", system="Be brief."))
        assert system.content.startswith("Be brief.\n\nGive only the answer")
        assert asked.content == "q"

    def test_a_written_one_takes_the_system_prompts_place(self) -> None:
        made = named(make_test_plan("gate.instruction=Say yes."))["instruction"]
        assert texts(made.prompt(question("q", "a", system="Be brief."))) == ["system: Say yes.", "user: q"]

    @pytest.mark.parametrize("opening", [(), (Message(role="assistant", content="Hello"),)])
    def test_without_a_system_prompt_it_opens_the_persons_first_turn(self, opening: tuple[Message, ...]) -> None:
        """Some chat templates refuse the role of the system; where rows have one, the data stage has tried it."""
        turns = [("user", "q"), ("assistant", "a"), ("user", "again")]
        messages = (*opening, *(Message(role=role, content=text) for role, text in turns))  # type: ignore[arg-type]
        row = Example(messages=(*messages, Message(role="assistant", content="b")), source="x:1")
        prompt = named(make_test_plan("gate.instruction=Say yes."))["instruction"].prompt(row)
        assert [turn.role for turn in prompt] == [turn.role for turn in messages]
        assert texts(prompt)[len(opening) :] == ["user: Say yes.\n\nq", "assistant: a", "user: again"]

    def test_it_names_the_classes(self) -> None:
        found = describe_answers([question(str(i), ("Yes", "No ")[i % 2]) for i in range(9)], SCHEMA)
        assert "The answer is one of: No; Yes." in found and "Schema" not in found

    def test_it_shows_the_schema_unless_that_is_too_long_or_has_no_room(self) -> None:
        free = rows("own", 9, "{{}} free text {i}")
        assert json.dumps(SCHEMA) in describe_answers(free, SCHEMA)
        assert "Schema" not in describe_answers(free, {"description": "x" * 4001})
        for context, is_shown in ((None, True), (2048, True), (190, True), (170, False), (60, False)):
            made = named(in_context(context), dataset(free), SCHEMA)["instruction"]
            assert ("Schema" in made.prompt(question("q", "a"))[0].content) == is_shown, context

    def test_it_says_when_every_answer_is_json(self) -> None:
        some = [question(str(i), f' {{"a": {i}}}') for i in range(9)]
        assert "one JSON value." in describe_answers(some, None)
        assert "JSON" not in describe_answers([*some, question("x", "plain")], None)

    @pytest.mark.parametrize(
        ("answers", "told"),
        [
            (["one two three", "one two three four", "one two"], "about 3 words"),
            (["one", "two", "three"], "about 1 word."),
            (["今天天气很好", "明天天气不好", "后天天气很好"], "about 6 words"),
            ([":)", "=D", ":("], "about 1 word."),
            ([], "about 1 word."),
        ],
    )
    def test_it_says_how_long_an_answer_usually_is_in_every_script(self, answers: list[str], told: str) -> None:
        assert told in describe_answers([question(str(i), answer) for i, answer in enumerate(answers)], None)


class TestExamples:
    def test_each_prompt_of_few_shot_has_the_same_and_of_nearest_its_own(self) -> None:
        made, asked = named(make_test_plan("gate.shots=2")), [question(f"question {i}", "") for i in (3, 8)]
        few, near = ([texts(made[name].prompt(row))[:-1] for row in asked] for name in ("few_shot", "nearest"))
        assert few[0] == few[1] and len(few[0]) == 4
        assert near[0] != near[1] and len(near[0]) == 4

    def test_the_nearest_stands_next_to_the_question(self) -> None:
        prompt = texts(named()["nearest"].prompt(question("what of question 7", "", system="Mine.")))
        assert prompt[0] == "system: Mine." and prompt[-3:-1] == ["user: own question 7", "assistant: own answer 7"]

    def test_examples_bring_all_their_turns_but_no_system_prompt(self) -> None:
        call = Message(role="assistant", content="", tool_calls="[]")
        turns = (Message(role="user", content="q"), call, Message(role="tool", content="42", tool_call_id="1"))
        messages = (Message(role="system", content="S"), *turns, Message(role="assistant", content="a"))
        example = Example(messages=messages, source="x:1", tools="[]")
        made = named(data=dataset((example,)))
        for name in ("few_shot", "nearest"):
            assert made[name].prompt(question("mine", ""))[:-1] == example.messages[1:], name
            assert made[name].num_shots == 1

    @pytest.mark.parametrize("by", ["answer", "label"])
    def test_few_shot_shows_different_classes(self, by: str) -> None:
        some = [question(f"q{i}", "abc"[i % 3] if by == "answer" else f"a{i}") for i in range(30)]
        if by == "label":
            some = [replace(row, label="abc"[i % 3]) for i, row in enumerate(some)]
        chosen = choose_examples(some, 3, 0)
        assert {row.label or row.expected for row in chosen} == {"a", "b", "c"}
        assert len({row.id for row in choose_examples(some, 7, 0)}) == 7, "and then others, each once"

    def test_few_shot_shows_none_of_the_long_ones(self) -> None:
        some = [question("q" * (1 + i), f"answer {i}") for i in range(30)]
        assert all(len(row.question) <= 16 for seed in range(9) for row in choose_examples(some, 5, seed))

    @pytest.mark.parametrize(
        ("context", "shots"), [(None, 3), (2048, 3), (450, 3), (449, 2), (250, 1), (249, 0), (150, 0), (20, 0)]
    )
    def test_only_as_many_as_the_context_holds(self, context: int | None, shots: int) -> None:
        made = named(in_context(context, "gate.shots=3"))  # a row has 100 tokens, an answer at most 50
        for name in ("few_shot", "nearest"):
            arm = made[name]
            assert (arm.num_shots, arm.left_out is None) == (shots, shots > 0)
            assert len(arm.prompt(question("q", ""))) == 1 + 2 * shots

    @pytest.mark.parametrize("own", [(), rows("own", 2)])
    def test_few_training_rows_are_all_that_there_is_to_show(self, own: tuple[Example, ...]) -> None:
        made = named(data=dataset(own))
        assert made["nearest"].num_shots == len(own)
        assert bool(made["nearest"].left_out) == (not own)
        assert all(made[name].prompt(question("q", "")) for name in ALL)

    def test_nothing_is_indexed_before_something_is_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[int] = []
        real = arms.Retriever
        monkeypatch.setattr(arms, "Retriever", lambda examples: made.append(1) or real(examples))
        nearest = named()["nearest"]
        assert made == []
        nearest.prompt(question("q", ""))
        nearest.prompt(question("p", ""))
        assert made == [1]


def test_answers_have_room_for_a_quarter_more_than_the_longest_expected_one() -> None:
    assert sampling_of(make_test_plan(), make_dataset()).max_new_tokens == 25
    assert sampling_of(make_test_plan("eval.max_new_tokens=7"), make_dataset()).max_new_tokens == 7


def test_rows_are_drawn_by_their_contents_and_the_seed() -> None:
    some = rows("dev", 30)
    drawn = draw_rows(some, 10, 0)
    assert len(set(drawn)) == 10 and draw_rows(some[::-1], 10, 0) == drawn
    assert draw_rows(some, 5, 0) == drawn[:5] and draw_rows(some, 10, 1) != drawn
    assert sorted(draw_rows(some, 99, 0), key=str) == sorted(some, key=str)
