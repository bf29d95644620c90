"""The lifecycle: manifest -> plan -> data -> cost -> gate -> train -> evaluate -> roi -> report."""

from __future__ import annotations

from runner.cost import check_budget, estimate_cost
from runner.data import prepare_data
from runner.errors import Refused
from runner.evaluate import check_metrics, evaluate, read_answer_schema
from runner.gate import decide
from runner.manifest import Manifest
from runner.plan import make_plan
from runner.report import Facts, to_json
from runner.roi import compute_roi
from runner.rundir import RunDirectory
from runner.train import train
from runner.world import World


def run_lifecycle(manifest: Manifest, world: World, run: RunDirectory, facts: Facts) -> None:
    """Carries one manifest to its verdict, filling in `facts` as it goes.

    Raises Refused when the gate or the budget says no, Interrupted when asked to stop, RunnerError otherwise.
    """
    with world.stage("plan", run, facts):
        backend = world.load_backend(manifest.values["approach"]["kind"])
        facts.environment = backend.environment()
        session = world.open_session(manifest, backend)
        facts.plan = plan = make_plan(manifest, session.facts)
        read_answer_schema(plan.eval)
        world.track(plan, run, facts)

    with world.stage("data", run, facts):
        facts.data = dataset = prepare_data(plan, session, run.folder("data"), world.cache, world.watch)
        world.watch.say(f"{dataset.ledger}; {dataset.split}")
        check_metrics(plan, dataset)

    with world.stage("cost", run, facts):
        facts.estimate = estimate_cost(plan, dataset, backend.matmul_rate)
        check_budget(plan, facts.estimate)

    with world.stage("gate", run, facts):
        facts.decision = decision = decide(plan, dataset)
        run.write_json("gate/decision.json", to_json(decision))
        if decision.refuses:
            raise Refused([finding for finding in decision.findings if finding.severity == "error"])

    with world.stage("train", run, facts):
        facts.training = train(plan, dataset, session, run, world.watch)

    with world.stage("evaluate", run, facts):
        facts.evaluation = evaluate(plan, dataset, session, run.folder("evaluation"), world.watch)

    with world.stage("roi", run, facts):
        facts.roi = compute_roi(plan, sum(facts.timings.values()) / 3600, facts.evaluation)
