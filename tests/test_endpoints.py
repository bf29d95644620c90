"""Whole runs that speak to a judge and to another model over real HTTP, on the tiny model."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from runner.conversation import Message
from runner.errors import Exit
from tests.chat_server import Body, FakeServer
from tests.judge.scripted import Script, Shown, always_first, longer_wins, marks, rubbish, take_apart
from tests.test_lifecycle import run

Write = Callable[..., Path]
pytestmark = pytest.mark.slow
WARN = {"policy": "warn", "reason": "a test"}
QUICK = {"epochs": 0.2, "max_length": 256, "rank": 8}


def judge_by(script: Script) -> Callable[[Body], str]:
    """A server's answer: what a scripted judge says of the prompt that came."""

    def answer(body: Body) -> str:
        turns = [Message(role=turn["role"], content=turn["content"]) for turn in body["messages"]]
        said = script(take_apart(turns))
        assert isinstance(said, str)
        return said

    return answer


def knows_the_word(shown: Shown) -> str:
    """Marks an answer by whether it has the word that the task asks for."""
    asked = re.search(r"say (\w+) to", shown.task)
    assert asked is not None
    return marks(*(5 if f'"{asked[1]}"' in text else 1 for text in (shown.a, shown.b)))


def judged_by(server: FakeServer, metrics: tuple[str, ...] = ("exact_match", "judge"), **judge: Any) -> dict[str, Any]:
    """The section `eval` with a judge at the server."""
    endpoint = {"base_url": server.url, "model": server.model, **judge.pop("endpoint", {})}
    return {"metrics": list(metrics), "judge": {"endpoint": endpoint, "rubric": "Has the right word.", **judge}}


def codes(report: Mapping[str, Any]) -> set[str]:
    return {problem["code"] for problem in report["problems"]}


def test_a_good_judge_is_tested_believed_and_its_marks_are_compared(write_experiment: Write, tmp_path: Path) -> None:
    with FakeServer(judge_by(knows_the_word)) as server:
        manifest = write_experiment(gate=WARN, hyperparameters=QUICK, eval=judged_by(server))
        code, report = run(manifest, tmp_path / "out")
    assert code == Exit.DONE
    assert report["gate"]["judge"]["reliable"] is True
    judge = report["evaluation"]["judge"]
    assert judge["reliable"] is True
    assert judge["pairs"][0]["against"] == "base"
    assert sum(judge["pairs"][0]["judged"]["outcomes"].values()) == report["evaluation"]["num_rows"]
    assert ("judge", "base") in [(c["metric"], c["against"]) for c in report["evaluation"]["comparisons"]]
    assert (tmp_path / "out/gate/judge-test.jsonl").exists() and (tmp_path / "out/evaluation/judge-base.jsonl").exists()
    sent = json.dumps([request.body for request in server.chats])
    assert "tuned" not in sent and "base model" not in sent, "the judge must not learn which side is which"


@pytest.mark.parametrize("script", [always_first, longer_wins, rubbish])
def test_a_judge_that_cannot_judge_gives_no_figure_and_the_other_scores_stand(
    script: Script, write_experiment: Write, tmp_path: Path
) -> None:
    with FakeServer(judge_by(script)) as server:
        manifest = write_experiment(gate=WARN, hyperparameters=QUICK, eval=judged_by(server))
        code, report = run(manifest, tmp_path / "out")
    assert code == Exit.DONE
    assert report["gate"]["judge"]["reliable"] is False
    assert "judge/not-reliable" in codes(report)
    evaluation = report["evaluation"]
    assert (evaluation["judge"]["reliable"], evaluation["judge"]["pairs"]) == (False, [])
    assert {c["metric"] for c in evaluation["comparisons"]} == {"exact_match"}
    assert evaluation["sides"]["tuned"]["scores"]["judge"] is None


def test_an_unreliable_judge_that_is_the_primary_metric_ends_the_run_before_training(
    write_experiment: Write, tmp_path: Path
) -> None:
    with FakeServer(judge_by(rubbish)) as server:
        manifest = write_experiment(hyperparameters=QUICK, eval=judged_by(server, ("judge", "exact_match")))
        code, report = run(manifest, tmp_path / "out")
    assert (code, report["status"], report["verdict"]) == (Exit.SAID_NO, "refused", "inconclusive")
    assert report["training"] is None
    assert "not reliable" in report["verdict_text"]


@pytest.mark.parametrize(
    ("failure", "exit_code"), [("unauthorized", Exit.CREDENTIALS), ("server-error", Exit.UNAVAILABLE)]
)
def test_a_judge_that_fails_in_the_end_leaves_every_other_score_and_a_run_to_go_on_with(
    failure: str, exit_code: Exit, write_experiment: Write, tmp_path: Path
) -> None:
    with FakeServer(judge_by(knows_the_word)) as server:
        manifest = write_experiment(gate=WARN, hyperparameters=QUICK, eval=judged_by(server))

        def fail_later(body: Body) -> str:
            if "A reference answer" in json.dumps(body):
                server.fail_always(failure)
            return judge_by(knows_the_word)(body)

        server.answer = fail_later
        code, report = run(manifest, tmp_path / "out")
        assert (code, report["status"]) == (exit_code, "failed")
        assert report["evaluation"]["comparisons"][0]["metric"] == "exact_match"
        assert report["evaluation"]["sides"]["tuned"]["scores"]["exact_match"] is not None
        assert report["evaluation"]["judge"]["reliable"] is False
        num_sent = len(server.chats)
        code, again = run(manifest, tmp_path / "out")
        assert (code, again["evaluation"]["comparisons"]) == (exit_code, report["evaluation"]["comparisons"])
        server.fail_always(None)
        server.answer = judge_by(knows_the_word)
        code, report = run(manifest, tmp_path / "out")
    assert (code, report["status"], report["evaluation"]["judge"]["reliable"]) == (Exit.DONE, "done", True)
    assert len(server.chats) > num_sent


AWAY = pytest.mark.parametrize(
    ("endpoint", "exit_code", "code"),
    [
        ({"base_url": "http://127.0.0.1:9/v1"}, Exit.UNAVAILABLE, "endpoint/unreachable"),
        ({"api_key_env": "NO_SUCH_KEY"}, Exit.CREDENTIALS, "endpoint/key-missing"),
        ({"model": "another"}, Exit.MANIFEST, "endpoint/unknown-model"),
    ],
)


@AWAY
def test_a_primary_judge_that_cannot_be_asked_is_told_before_anything_is_spent(
    endpoint: dict[str, str], exit_code: Exit, code: str, write_experiment: Write, tmp_path: Path
) -> None:
    with FakeServer(judge_by(knows_the_word)) as server:
        section = judged_by(server, ("judge", "exact_match"), endpoint={**endpoint, "timeout_seconds": 2})
        found, report = run(write_experiment(gate=WARN, eval=section), tmp_path / "out")
    assert (found, report["status"]) == (exit_code, "failed")
    assert code in codes(report)
    assert (report["data"], report["training"]) == (None, None)
    assert report["problems"][0]["fix"]


@pytest.mark.long
@AWAY
@pytest.mark.parametrize("gate", [{}, WARN])
def test_another_judge_that_cannot_be_asked_leaves_the_other_scores(
    gate: dict[str, str],
    endpoint: dict[str, str],
    exit_code: Exit,
    code: str,
    write_experiment: Write,
    tmp_path: Path,
) -> None:
    with FakeServer(judge_by(knows_the_word)) as server:
        section = judged_by(server, endpoint={**endpoint, "timeout_seconds": 2})
        manifest = write_experiment(gate=gate, hyperparameters=QUICK, eval=section)
        found, report = run(manifest, tmp_path / "out")
    assert (found, report["status"]) == (exit_code, "failed")
    assert code in codes(report)
    assert all(arm["side"]["scores"]["exact_match"] for arm in report["gate"]["arms"])
    if gate:  # told to go on whatever the gate finds
        assert report["evaluation"]["sides"]["tuned"]["scores"]["exact_match"]
        assert report["evaluation"]["sides"]["tuned"]["scores"]["judge"] is None
    else:
        assert report["training"] is None


def test_a_wrong_key_is_told_without_showing_it(
    write_experiment: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-very-secret")
    with FakeServer("yes") as server:
        server.fail_always("unauthorized")
        manifest = write_experiment(gate=WARN, eval=judged_by(server, endpoint={"api_key_env": "JUDGE_KEY"}))
        code, report = run(manifest, tmp_path / "out")
    assert code == Exit.CREDENTIALS
    assert "endpoint/key-refused" in codes(report)
    assert "sk-very-secret" not in json.dumps(report) + capsys.readouterr().out


def test_another_model_that_is_good_enough_makes_tuning_needless(write_experiment: Write, tmp_path: Path) -> None:
    def right(body: Body) -> str:
        word = re.search(r"say (\w+) to", body["messages"][-1]["content"])
        return json.dumps({"word": word[1]}) if word else "OK"

    with FakeServer(right) as server:
        endpoint = {"base_url": server.url, "model": server.model}
        prices = {"usd_per_million_input": 2.0, "usd_per_million_output": 8.0}
        gate = {"target": 0.8, "arms": ["zero_shot"], "models": [{"name": "large", "endpoint": {**endpoint, **prices}}]}
        code, report = run(write_experiment(num_rows=300, gate=gate), tmp_path / "out")
    assert (code, report["status"], report["verdict"]) == (Exit.SAID_NO, "refused", "prompting_enough")
    assert report["gate"]["best"] == "large"
    arm = next(arm for arm in report["gate"]["arms"] if arm["name"] == "large")
    assert arm["side"]["scores"]["exact_match"]["mean"] == 1
    side = arm["side"]
    assert arm["usd_per_1000"] == pytest.approx(side["prompt_tokens"] * 2 / 1000 + side["output_tokens"] * 8 / 1000)
    assert "large reaches the target" in report["verdict_text"]
    assert (tmp_path / "out/gate/large.jsonl").exists()


def call(manifest: Path, out: Path, cache: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "RUNNER_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "runner", str(manifest), "--out", str(out)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.mark.long
def test_a_killed_evaluation_sends_no_request_twice_and_gives_the_same_result(
    write_experiment: Write, tmp_path: Path
) -> None:
    answered: list[str] = []
    killed: list[str] = []
    process: list[subprocess.Popen[bytes]] = []

    def answer(body: Body) -> str:
        text = json.dumps(body, sort_keys=True)
        if "A reference answer" in text and len(answered) > 70 and not killed:  # amid the evaluation, not the test
            killed.append(text)
            process[0].send_signal(signal.SIGKILL)
            process[0].wait()
        else:
            answered.append(text)
        return judge_by(knows_the_word)(body)

    with FakeServer(answer) as server:
        manifest = write_experiment(
            gate=WARN, hyperparameters=QUICK, eval=judged_by(server, endpoint={"max_parallel": 1})
        )
        process.append(call(manifest, tmp_path / "out", tmp_path / "cache"))
        assert process[0].wait() == -signal.SIGKILL
        num_before = len(answered)
        assert killed and not (tmp_path / "out/report.json").exists()
        assert call(manifest, tmp_path / "out", tmp_path / "cache").wait() == Exit.DONE
        assert num_before < len(answered)
        assert max(Counter(answered).values()) == 1, "nothing that was answered is asked again"
        assert call(manifest, tmp_path / "whole", tmp_path / "other").wait() == Exit.DONE
    resumed, whole = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("out", "whole"))
    assert without_times(resumed["evaluation"]) == without_times(whole["evaluation"])
    assert without_times(resumed["gate"]) == without_times(whole["gate"])


VOLATILE = ("seconds_per_answer", "usd_per_1000", "num_cached", "new_usd")


def without_times(value: Any) -> Any:
    """The same values but for what a clock or the cache has a part in."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in VOLATILE}
    return [without_times(item) for item in value] if isinstance(value, list) else value
