"""The real W&B library: offline, online at a server of ours, refused, and where nobody answers."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.backends.wandb import close_service
from runner.cli import main
from runner.errors import Exit, RunnerError
from runner.gate.decide import ArmResult
from runner.report import Facts, all_problems
from runner.stats import Interval
from runner.tracking import _summary, choose_mode, open_tracker
from tests import wandb_server
from tests.errors import call
from tests.fakes import (
    FakeWatch,
    make_comparison,
    make_decision,
    make_evaluation,
    make_side,
    make_test_plan,
    trained_model,
)
from tests.wandb_server import KEY, WandbServer, basic

Write = Callable[..., Path]
QUICK = {"gate": {"policy": "warn", "reason": "a test"}, "hyperparameters": {"epochs": 0.2}}


def report_of(manifest: Path, out: Path) -> dict[str, Any]:
    assert main([str(manifest), "--out", str(out)]) == Exit.DONE
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


@pytest.mark.slow
def test_an_offline_run_holds_config_curves_and_scores(write_experiment: Write, tmp_path: Path) -> None:
    report = report_of(write_experiment(tracking={"wandb": "auto"}, **QUICK), tmp_path / "out")
    assert report["tracking"]["wandb"] == "offline"
    assert report["tracking"]["note"] is None
    (file,) = (tmp_path / "out/wandb").rglob("*.wandb")
    written = file.read_bytes()
    for key in (b"hyperparameters", b"train/loss", b"train/dev_loss", b"evaluation/base/exact_match/difference"):
        assert key in written


@pytest.fixture
def wandb() -> Iterator[WandbServer]:
    with wandb_server.serving() as server:
        yield server


@pytest.fixture
def online(wandb: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    """The server, which the environment names with a key; no file of the machine's own holds another. W&B's service
    keeps the first address that it is told, so it ends with the test."""
    close_service()
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", wandb.url)
    yield wandb
    close_service()


# --- before anything is spent ---------------------------------------------------------------------------------------


def mode_of(wanted: str, environment: dict[str, str]) -> tuple[str, str | None]:
    return choose_mode(wanted, environment)


def refusal(wanted: str, environment: dict[str, str]) -> RunnerError:
    with pytest.raises(RunnerError) as caught:
        mode_of(wanted, environment)
    assert caught.value.exit_code == Exit.CREDENTIALS
    (problem,) = caught.value.problems
    assert (problem.code, problem.where.key) == ("tracking/refused", "tracking.wandb")
    assert "WANDB_API_KEY" in problem.fix
    return caught.value


def test_online_without_a_key_is_refused_and_auto_stays_offline(tmp_path: Path) -> None:
    nothing = {"HOME": str(tmp_path)}
    assert "no key is set" in str(refusal("online", nothing))
    assert mode_of("auto", nothing) == mode_of("offline", nothing) == ("offline", None)


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_the_server_does_not_take_is_refused(status: int, wandb: WandbServer) -> None:
    wandb.login = status
    environment = {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": wandb.url}
    told = str(refusal("online", environment))
    assert str(status) in told and wandb.url in told and KEY not in told
    mode, why = mode_of("auto", environment)
    assert mode == "offline" and why and str(status) in why


def test_a_server_that_knows_nobody_by_the_key_refuses_it_too(wandb: WandbServer) -> None:
    wandb.viewer = None
    refusal("online", {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": wandb.url})


def test_asking_who_we_are_sends_the_key_and_opens_nothing(wandb: WandbServer) -> None:
    environment = {"WANDB_API_KEY": f" {KEY}\n", "WANDB_BASE_URL": f"{wandb.url}/"}
    assert mode_of("online", environment) == ("online", None)
    assert wandb.seen == [(basic(KEY), "query Viewer { viewer { id } }")]


@pytest.mark.parametrize("name", [".netrc", "_netrc", "elsewhere"])
def test_the_key_may_be_where_wandb_login_put_it(name: str, tmp_path: Path, wandb: WandbServer) -> None:
    host = wandb.url.removeprefix("http://")
    (tmp_path / name).write_text(f"machine {host}\n  login user\n  password {KEY}\n")
    (tmp_path / name).chmod(0o600)
    environment = {"HOME": str(tmp_path), "WANDB_BASE_URL": wandb.url}
    if name == "elsewhere":
        environment["NETRC"] = str(tmp_path / name)
    assert mode_of("online", environment) == ("online", None)
    assert wandb.seen[0][0] == basic(KEY)


@pytest.mark.parametrize("wanted", ["auto", "online"])
def test_nobody_answering_keeps_the_run_offline_and_says_so(wanted: str) -> None:
    mode, why = mode_of(wanted, {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": "http://127.0.0.1:9"})
    assert mode == "offline" and why and "cannot be reached: Connection refused" in why


@pytest.mark.parametrize("status", [500, 502, 404])
def test_a_server_in_trouble_is_none_that_refuses(status: int, wandb: WandbServer) -> None:
    wandb.login = status
    mode, why = mode_of("online", {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": wandb.url})
    assert mode == "offline" and why and str(status) in why


def test_a_server_that_never_answers_is_waited_for_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.backends.wandb.LOGIN_TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        mode, why = mode_of("online", {"WANDB_API_KEY": KEY, "WANDB_BASE_URL": url})
    assert mode == "offline" and why and "timed out" in why


@pytest.mark.parametrize("said", [{"WANDB_MODE": "offline"}, {"WANDB_DISABLED": "true"}])
def test_the_environment_may_forbid_going_online(said: dict[str, str]) -> None:
    assert mode_of("auto", said) == ("offline", None)
    mode, why = mode_of("online", said)
    assert mode == "offline" and why and "WANDB_MODE" in why


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_the_command_ends_with_77_before_anything_is_spent(
    verb: str, write_experiment: Write, tmp_path: Path, online: WandbServer
) -> None:
    online.login = 401
    fetched = {"model": "org/would-be-fetched@main"}
    manifest, out = write_experiment(tracking={"wandb": "online"}, approach=fetched), tmp_path / "out"
    code, screen = call(verb, str(manifest), *(("--out", str(out)) if verb == "run" else ()))
    assert code == Exit.CREDENTIALS
    assert "[tracking/refused]" in screen and "tiny.yaml:" in screen and KEY not in screen
    if verb == "run":
        report = json.loads((out / "report.json").read_text())
        assert (report["exit_code"], report["data"], report["timings"].keys()) == (77, None, {"plan"})


def test_a_key_in_a_file_is_a_key(
    write_experiment: Write, tmp_path: Path, online: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    online.login = 403
    (tmp_path / "key").write_text(f"{KEY}\n")
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("WANDB_API_KEY_FILE", str(tmp_path / "key"))
    assert call("plan", str(write_experiment(tracking={"wandb": "online"})))[0] == Exit.CREDENTIALS
    assert online.seen[0][0] == basic(KEY)
    monkeypatch.setenv("WANDB_API_KEY_FILE", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_API_KEY")  # which the command put there
    code, screen = call("plan", str(write_experiment(tracking={"wandb": "auto"})))
    assert code == Exit.CREDENTIALS and "[credentials/unreadable]" in screen


def test_a_project_that_the_key_may_not_write_to_is_refused(
    write_experiment: Write, tmp_path: Path, online: WandbServer
) -> None:
    online.opening = 403
    code, screen = call("run", str(write_experiment(tracking={"wandb": "online"})), "--out", str(tmp_path / "out"))
    assert code == Exit.CREDENTIALS and "[tracking/refused]" in screen
    assert json.loads((tmp_path / "out/report.json").read_text())["data"] is None


# --- the run itself -------------------------------------------------------------------------------------------------


def tracked(wanted: str, folder: Path, online: WandbServer, trouble: str = "") -> dict[str, Any]:
    """What the report says of a short run's tracking; `trouble` befalls the server while it is open."""
    chosen = choose_mode(wanted, os.environ)
    tracker = open_tracker(make_test_plan(f"tracking.wandb={wanted}"), "abc", folder, os.environ, *chosen)
    tracker.log({"train/loss": 1.0}, 1)
    online.is_down = trouble == "breaks down"
    return dict(tracker.finish(Facts(), 0, FakeWatch()))


@pytest.mark.slow
def test_a_run_online_says_where_it_is(tmp_path: Path, online: WandbServer) -> None:
    told = tracked("online", tmp_path, online)
    assert (told["wandb"], told["synced"], told["note"], told["sync"]) == ("online", True, None, None)
    assert told["url"].startswith(online.url)
    assert {authorization for authorization, _ in online.seen} == {basic(KEY)}
    assert "mutation UpsertBucket" in online.operations


@pytest.mark.slow
@pytest.mark.parametrize("trouble", ["refused", "unreachable", "breaks down"])
def test_trouble_with_the_server_ends_as_a_note(
    trouble: str, tmp_path: Path, online: WandbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runner.backends.wandb.FINISH_TIMEOUT_SECONDS", 3)
    if trouble == "refused":
        online.opening = 401
    elif trouble == "unreachable":
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    told = tracked("auto", tmp_path, online, trouble)
    assert told["wandb"] == ("online" if trouble == "breaks down" else "offline")
    assert told["synced"] is False and told["note"] and KEY not in told["note"]
    assert len(list(tmp_path.glob(told["sync"].removeprefix(f"wandb sync {tmp_path}/")))) > 0
    (problem,) = all_problems(Facts(tracking=told))
    assert (problem.code, problem.severity) == ("tracking/not-synced", "warning")
    assert told["note"] in problem.what and told["sync"] in problem.fix


def test_a_manifest_can_turn_tracking_off(write_experiment: Write, tmp_path: Path) -> None:
    report = report_of(write_experiment(tracking={"wandb": "off"}, **QUICK), tmp_path / "out")
    assert report["tracking"]["wandb"] == "off"
    assert not list((tmp_path / "out/wandb").iterdir())


def test_each_side_and_arm_has_keys_of_its_own() -> None:
    base, arm = make_comparison(), make_comparison(against="few_shot", untuned=0.6)
    loss = make_comparison(metric="loss", difference=-0.5)
    measured = ArmResult(
        name="few_shot",
        kind="prompting",
        description="",
        num_shots=3,
        side=make_side(scores={"exact_match": Interval(mean=0.6, low=0.5, high=0.7), "loss": None}),
        usd_per_1000=None,
        price_source="",
        left_out=None,
    )
    left_out = ArmResult(
        name="large",
        kind="model",
        description="",
        num_shots=0,
        side=None,
        usd_per_1000=None,
        price_source="",
        left_out="its endpoint failed",
    )
    values = _summary(
        Facts(
            evaluation=make_evaluation(comparisons=(base, arm, loss)),
            decision=make_decision(arms=(measured, left_out)),
        )
    )
    assert (values["verdict"], values["gate/verdict"]) == ("improved", "fine_tune")
    assert (values["evaluation/base/exact_match/untuned"], values["evaluation/few_shot/exact_match/untuned"]) == (
        0.5,
        0.6,
    )
    assert values["evaluation/base/loss/difference"] == -0.5
    assert {key: value for key, value in values.items() if key.startswith("gate/few_shot")} == {
        "gate/few_shot/exact_match": 0.6,
        "gate/few_shot/loss": None,
    }
    assert not any(key.startswith("gate/large") for key in values)


def test_the_training_s_figures_are_told_under_the_report_s_keys() -> None:
    told = _summary(Facts(training=trained_model(best_step=1)))
    values = {key.removeprefix("training/"): value for key, value in told.items() if key.startswith("training/")}
    assert (values["num_steps"], values["best_step"], values["dev_loss"], values["final_loss"]) == (2, 1, 0.6, 0.5)
    assert (values["memory/estimate_bytes"], values["memory/peak_bytes"]) == (1_100_000_000, 1_000_000_000)
