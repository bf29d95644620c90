"""One attempt at a run: its identity, its directory, the lifecycle, and a report whatever happened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runner.attempts import DEFAULT_LIMIT, check_progress, read_attempts
from runner.backends.base import Watch
from runner.delivery import DeliveredFile, Pushed
from runner.delivery.push import push_delivery
from runner.disks import io_problem
from runner.errors import EXIT_CODES, Exit, Interrupted, Problem, Refused, RunnerError
from runner.manifest import Manifest
from runner.masking import print_exception
from runner.pipeline import run_lifecycle
from runner.pushing import KEY, is_owed, open_place
from runner.record import begin_record, keep_manifest, machine_in_short, write_record
from runner.render import render_html
from runner.report import Facts, Status, make_report, to_json
from runner.rundir import EVENTS, RunDirectory
from runner.schema import read_schema
from runner.world import World

STATUSES: dict[type[RunnerError], Status] = {Refused: "refused", Interrupted: "interrupted"}


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """How an attempt ended: its report and exit code. `repeated` when it was already done."""

    report: Mapping[str, Any]
    exit_code: Exit
    repeated: bool = False


def report_faults(error: RunnerError, out: Path, world: World) -> None:
    """Leaves a report of a manifest that could not be read in a run directory that holds nothing else."""
    run = RunDirectory(out)
    try:
        if run.is_vacant():
            _leave_report(run, Facts(problems=list(error.problems)), "failed", error.exit_code, world.now())
    finally:
        run.close()


def attempt(manifest: Manifest, run: RunDirectory, run_id: str, world: World, *, fresh: bool) -> Attempt:
    """Carries the manifest out in its run directory, leaves a report there, and sends the weights where they are to go.
    Of a run that is done, only what was not sent yet.

    Raises RunnerError (73) only where the directory holds something else.
    """
    finished = run.claim(run_id, fresh=fresh)
    if finished is None:
        done = _make(manifest, run, run_id, world)
    else:
        done = Attempt(report=finished, exit_code=Exit(finished["exit_code"]), repeated=True)
    return _push(done, manifest, run, world) if is_owed(done.report, manifest.values) else done


def _make(manifest: Manifest, run: RunDirectory, run_id: str, world: World) -> Attempt:
    facts = Facts(manifest=manifest, run_id=run_id, problems=list(world.told))
    with world.watch.interruptible():
        held_to = str(world.locked.path) if world.locked else None
        facts.record = begin_record(manifest, run_id, run.path, world.cache, world.environment, held_to)
    write_record(run, facts)
    keep_manifest(run, manifest)
    return _carry_out(manifest, world, run, facts)


def _carry_out(manifest: Manifest, world: World, run: RunDirectory, facts: Facts) -> Attempt:
    started_at = world.now()
    status: Status
    try:
        _begin(manifest, world, run, facts)
        run_lifecycle(manifest, world, run, facts)
        status, exit_code = "done", _exit_of_verdict(facts)
    except BaseException as error:
        failure = _unless_idle(_as_ours(error, world.watch, [run.path, world.cache]), manifest, run)
        status, exit_code = STATUSES.get(type(failure), "failed"), failure.exit_code
        if exit_code == Exit.INTERRUPTED:
            status = "interrupted"
        facts.problems.extend(failure.problems)
    _leave_report(run, facts, status, exit_code, started_at)  # first of all, should the tracker hang and we be killed
    facts.tracking = world.tracker.finish(facts, int(exit_code), world.watch)
    report = _leave_report(run, facts, status, exit_code, started_at)
    return Attempt(report=report, exit_code=exit_code)


def _push(done: Attempt, manifest: Manifest, run: RunDirectory, world: World) -> Attempt:
    """The attempt with its weights sent away; where that fails, the run is done all the same, and the code says why it
    should be started again."""
    arrived: list[DeliveredFile] = []
    to = manifest.values["delivery"]
    place = open_place(to["to"], private=to.get("private", True), environment=world.environment)
    pushed = Pushed(url=place.url, pushed_at=None, commit=None, files=(), serve=())
    failure: RunnerError | None = None
    try:
        if done.repeated:
            _begin_push(manifest, run, world)
        world.watch.stage("push")
        run.event("stage", stage="push")
        with world.watch.interruptible():
            pushed = push_delivery(done.report, run.path, place, world.watch, world.now, arrived)
    except BaseException as error:
        ours = _as_ours(error, world.watch, [run.path])
        run.event("end", status="done", exit_code=int(ours.exit_code))
        failure = _unless_idle(ours, manifest, run)
        pushed = replace(pushed, files=tuple(arrived))
    report = _with_push(done.report, pushed, failure)
    if failure is None:
        run.event("end", status="done", exit_code=report["exit_code"])
    _write_report(run, report)
    return Attempt(report=report, exit_code=Exit(report["exit_code"]))


def _begin_push(manifest: Manifest, run: RunDirectory, world: World) -> None:
    """Notes an attempt that only sends; raises RunnerError (70) where the last ones sent nothing."""
    earlier = read_attempts(run.path / EVENTS)
    run.event("attempt", number=len(earlier) + 1)
    world.watch.note_saved_with(lambda what, amount: run.event("saved", what=what, amount=amount))
    check_progress(earlier, _idle_limit(manifest))


def _with_push(report: Mapping[str, Any], pushed: Pushed, failure: RunnerError | None) -> dict[str, Any]:
    """The report with what became of the push, in place of what an earlier one left."""
    others = [problem for problem in report["problems"] if problem["where"]["key"] != KEY]
    told = [problem.at(replace(problem.where, key=KEY)) for problem in failure.problems] if failure else []
    evaluation, gate = report["evaluation"], report["manifest"]["values"]["gate"]
    verdict = _exit_of(evaluation["verdict"], evaluation["identical_share"], gate["task"], gate["policy"])
    exit_code = failure.exit_code if failure else verdict
    return {
        **report,
        "exit_code": int(exit_code),
        "exit_meaning": EXIT_CODES[exit_code].meaning,
        "delivery": {**report["delivery"], "to": to_json(pushed)},
        "problems": [*map(to_json, told), *others],
    }


def _begin(manifest: Manifest, world: World, run: RunDirectory, facts: Facts) -> None:
    """Notes the attempt, and what it saves; raises RunnerError (70) where the last ones saved nothing."""
    earlier = read_attempts(run.path / EVENTS)
    run.event("attempt", number=len(earlier) + 1, **machine_in_short(facts.record))
    write_record(run, facts)
    if reason := facts.record["git"]["reason"]:
        world.watch.say(f"The state of the git repository is not known: {reason}")
    world.watch.note_saved_with(lambda what, amount: run.event("saved", what=what, amount=amount))
    check_progress(earlier, _idle_limit(manifest))


def _unless_idle(failure: RunnerError, manifest: Manifest, run: RunDirectory) -> RunnerError:
    """The failure; where a scheduler would try again and again without end, that it would."""
    if EXIT_CODES[failure.exit_code].retry:
        try:
            check_progress(read_attempts(run.path / EVENTS), _idle_limit(manifest))
        except RunnerError as idle:
            return RunnerError([*failure.problems, *idle.problems], idle.exit_code)
    return failure


def _idle_limit(manifest: Manifest) -> int | None:
    limit: int | None = manifest.values.get("budget", {}).get("max_idle_attempts", DEFAULT_LIMIT)
    return limit


def _as_ours(error: BaseException, watch: Watch, folders: Sequence[Path]) -> RunnerError:
    """What ended the lifecycle. After a request to stop it is that request, whatever a library made of it."""
    try:
        watch.check()
    except Interrupted as asked:
        return asked
    if isinstance(error, RunnerError):
        return error
    if isinstance(error, OSError):
        return RunnerError(io_problem(error, folders), Exit.IO)
    if not isinstance(error, Exception):
        raise error
    return _unforeseen(error)


def _unforeseen(error: Exception) -> RunnerError:
    """Memory that ran out has a cure; everything else that no stage foresaw is a bug of ours."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        fix = "Lower hyperparameters.batch_size or max_length, or set approach.kind to qlora."
        problem = Problem(code="run/out-of-memory", what="The machine's memory is full.", fix=fix)
        return RunnerError(problem, Exit.MANIFEST)
    print_exception(error)
    what = f"A bug of ours: {type(error).__name__}: {error}"
    problem = Problem(code="run/bug", what=what, fix="Please report it, with the traceback above.")
    return RunnerError(problem, Exit.BUG)


def _leave_report(
    run: RunDirectory, facts: Facts, status: Status, exit_code: Exit, started_at: str
) -> Mapping[str, Any]:
    """Writes the page first and the JSON last: where there is a report.json, everything else is there too."""
    report = make_report(facts, status, exit_code, started_at)
    run.event("end", status=status, exit_code=int(exit_code))
    if facts.record:
        write_record(run, facts)
    _write_report(run, report)
    return report


def _write_report(run: RunDirectory, report: Mapping[str, Any]) -> None:
    check_report(report)
    run.write_text("report.html", render_html(report))
    run.write_json("report.json", report)


def check_report(report: Mapping[str, Any]) -> None:
    """Holds our own report to its published schema; a violation is a bug of ours."""
    from jsonschema import Draft202012Validator

    Draft202012Validator(read_schema("report")).validate(report)


def _exit_of_verdict(facts: Facts) -> Exit:
    assert facts.plan and facts.evaluation
    found, gate = facts.evaluation, facts.plan.gate
    return _exit_of(found.verdict, found.identical_share, gate.task, gate.policy)


def _exit_of(verdict: str, identical_share: float, task: str, policy: str) -> Exit:
    """0 when tuning helped, or when the policy only warns; 3 otherwise. Where tuning is for a shorter prompt or a
    smaller model, answers that are as good as before are what was wanted, but not of an adapter that does nothing."""
    wanted = ("improved", "equivalent") if task in ("cost", "latency") else ("improved",)
    helped = verdict in wanted and identical_share < 1
    return Exit.DONE if helped or policy != "enforce" else Exit.SAID_NO
