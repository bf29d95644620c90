"""The contract of the command: what it accepts, what it prints where, and its exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import runner
from runner import cli
from runner.errors import EXIT_CODES, Exit
from runner.schema import read_schema
from tests.errors import call

ROOT = Path(__file__).parents[1]
QUICKSTART = str(ROOT / "manifests" / "quickstart.yaml")
BROKEN = str(ROOT / "tests" / "errors" / "five-faults.yaml")
HEAVY = {"torch", "transformers", "trl", "peft", "datasets", "wandb", "numpy", "scipy", "sacrebleu", "jinja2", "rich"}


def start(*arguments: str, stdout: int = subprocess.PIPE, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with Python's usual buffers."""
    return subprocess.run(
        [sys.executable, "-m", "runner", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "", **environment},
        stdout=stdout,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


# --- arguments ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--nonsense",),
        ("run",),
        ("plan",),
        ("plan", QUICKSTART, QUICKSTART),
        ("run", QUICKSTART, "--set"),
        ("run", QUICKSTART, "--set", "seed"),
        ("validate",),
        ("validate", QUICKSTART, "--format", "xml"),
        ("validate", QUICKSTART, "--set", "seed=1"),
        ("schema", "nonsense"),
        ("report",),
        ("compare",),
        ("validat", QUICKSTART),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(arguments: tuple[str, ...]) -> None:
    assert call(*arguments)[0] == Exit.USAGE


def test_a_verb_that_is_spelled_wrongly_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("validat", QUICKSTART)[0] == Exit.USAGE
    assert "did you mean 'validate'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "environment", [{"RUNNER_LOG": "xml"}, {"RANK": "x", "WORLD_SIZE": "2"}, {"RANK": "0", "WORLD_SIZE": ""}]
)
def test_an_environment_that_makes_no_sense_is_a_usage_error(environment: dict[str, str]) -> None:
    done = start("run", QUICKSTART, **environment)
    assert done.returncode == Exit.USAGE
    assert next(iter(environment)) in done.stdout + done.stderr or "WORLD_SIZE" in done.stdout
    assert "Traceback" not in done.stderr


def test_options_may_come_before_the_manifest() -> None:
    assert call("--set", "seed=x", QUICKSTART)[0] == Exit.MANIFEST


def test_help_names_every_verb_and_every_exit_code() -> None:
    code, text = call("--help")
    assert code == Exit.DONE
    for verb in cli.VERBS:
        assert f"\n    {verb} " in text
    for number, meaning in EXIT_CODES.items():
        assert f"\n  {int(number):>3}  {meaning.meaning}\n" in text


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_help(verb: str) -> None:
    code, text = call(verb, "--help")
    assert (code, text.partition(" [")[0]) == (Exit.DONE, f"usage: runner {verb}")


def test_version_is_the_version_of_the_package() -> None:
    assert call("--version") == (Exit.DONE, f"runner {runner.__version__}\n")


@pytest.mark.parametrize("name", ["manifest", "report"])
def test_schema_prints_the_schema(name: str) -> None:
    code, text = call("schema", name)
    assert (code, json.loads(text)) == (Exit.DONE, read_schema(name))


def test_schema_means_the_manifest_when_nothing_is_named() -> None:
    assert call("schema") == call("schema", "manifest")


@pytest.mark.parametrize(
    ("rest", "code", "text"),
    [
        ((), Exit.MANIFEST, "five-faults.yaml:10:15: error"),
        (("--set", "hyperparameters.batch_size=x"), Exit.MANIFEST, "--set: error"),
        (("--set", "seed"), Exit.USAGE, "is not key=value"),
        (("--fresh",), Exit.MANIFEST, "five-faults.yaml:10:15: error"),
    ],
)
def test_a_manifest_alone_means_run(rest: tuple[str, ...], code: Exit, text: str) -> None:
    alone = call(BROKEN, *rest)
    assert alone == call("run", BROKEN, *rest)
    assert alone[0] == code
    assert text in alone[1]


# --- exit codes -----------------------------------------------------------------------------------------------------


def test_every_exit_code_has_a_meaning_and_none_is_taken_by_the_system() -> None:
    assert set(EXIT_CODES) == set(Exit)
    for code in set(Exit) - {Exit.DONE}:
        assert code not in (1, 2), "Python's own, and argparse's"
        assert not 125 <= code <= 165, "timeout, the shell, and death by a signal"
        assert code < 256


@pytest.mark.parametrize(
    ("files", "code", "last"),
    [
        ([QUICKSTART], Exit.DONE, "1 manifest: no problems"),
        ([QUICKSTART, QUICKSTART], Exit.DONE, "2 manifests: no problems"),
        ([QUICKSTART, "missing.yaml"], Exit.INPUT_MISSING, "2 manifests: 1 problem"),
        ([BROKEN, "missing.yaml", QUICKSTART], Exit.MANIFEST, "3 manifests: 6 problems"),
        ([str(ROOT)], Exit.INPUT_MISSING, "1 manifest: 1 problem"),
    ],
)
def test_validate_looks_at_every_manifest_and_ends_with_the_worst_code(files: list[str], code: Exit, last: str) -> None:
    found, text = call("validate", *files)
    assert (found, text.splitlines()[-1]) == (code, last)


def test_a_bug_of_ours_shows_its_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(path: Path) -> None:
        raise ZeroDivisionError(path)

    monkeypatch.setattr("runner.cli.opening.load_manifest", fail)
    assert call("validate", QUICKSTART) == (Exit.BUG, "")
    told = capsys.readouterr().err
    assert told.startswith("Traceback")
    assert "report it" in told


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_a_fault_of_reading_and_writing() -> None:
    with open("/dev/full", "w") as full:
        done = start("validate", QUICKSTART, stdout=full.fileno())
    assert done.returncode == Exit.IO
    assert done.stderr.startswith("Reading or writing failed: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_reader_that_has_gone_is_no_reason_to_shout() -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    done = start("validate", QUICKSTART, stdout=theirs)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (Exit.DONE, "")


# --- the process ----------------------------------------------------------------------------------------------------


def test_a_terminal_that_is_not_utf8_shows_escapes() -> None:
    done = start("validate", "für–.yaml", PYTHONIOENCODING="ascii", PYTHONUTF8="1")
    assert (done.returncode, done.stderr) == (Exit.INPUT_MISSING, "")
    assert "f\\xfcr\\u2013.yaml" in done.stdout


def test_validate_loads_nothing_heavy() -> None:
    manifests = sorted(str(path) for path in (ROOT / "manifests").glob("*.yaml"))
    code = f"import sys; from runner.cli import main; print(main(['validate', *{manifests!r}])); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    said, returned, modules = done.stdout.splitlines()
    assert (said, returned) == (f"{len(manifests)} manifests: no problems", "0")
    assert not {name.partition(".")[0] for name in modules.split()} & HEAVY
