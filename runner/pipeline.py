"""The lifecycle: manifest -> plan -> data -> cost -> gate -> train -> evaluate -> delivery -> roi -> report."""

from __future__ import annotations

from runner.arms import sampling_of
from runner.cost import check_budget, estimate_cost
from runner.data.prepare import prepare_data
from runner.delivery import check_delivery, deliver
from runner.errors import Refused
from runner.evaluate import evaluate
from runner.gate.decide import decide
from runner.manifest import Manifest
from runner.plan import make_plan
from runner.record import write_record
from runner.report import Facts, to_json
from runner.roi import compute_roi
from runner.rundir import RunDirectory
from runner.scoring import check_metrics, read_scoring, with_classes
from runner.train import train
from runner.world import World


def run_lifecycle(manifest: Manifest, world: World, run: RunDirectory, facts: Facts) -> None:
    """Carries one manifest to its verdict, filling in `facts` as it goes.

    Raises Refused when the gate or the budget says no, Interrupted when asked to stop, RunnerError otherwise.
    """
    with world.stage("plan", run, facts):
        world.choose_tracking(manifest)
        backend, facts.environment, found = world.open_backend(manifest)
        facts.problems += found
        session = world.open_session(manifest, backend)
        facts.models, differences = world.look_at_models(manifest, backend)
        facts.problems += differences
        facts.plan = plan = make_plan(manifest, session.facts)
        scoring = read_scoring(plan)
        world.check_primary(plan)
        world.check_destination(plan)
        world.track(plan, run, facts)
        run.begin()
        write_record(run, facts)

    with world.stage("data", run, facts):
        facts.data = dataset = prepare_data(plan, session, run.folder("data"), world.cache, world.watch)
        world.watch.say(f"{dataset.ledger}; {dataset.split}")
        facts.sources, differences = world.look_at_data(manifest, dataset.ledger)
        facts.problems += differences
        scoring = with_classes(scoring, dataset)
        facts.problems += check_metrics(scoring, dataset)
        answerer = world.answerer(plan, session, sampling_of(plan, dataset), scoring.schema)

    with world.stage("cost", run, facts):
        memory = session.expected_memory(plan.hyperparameters, dataset.train)
        facts.estimate = estimate_cost(plan, dataset, backend.matmul_rate, memory)
        check_budget(plan, facts.estimate)

    with world.stage("gate", run, facts):
        decision = facts.decision = decide(plan, dataset, facts.estimate, answerer, scoring, run.folder("gate"))
        run.write_json("gate/decision.json", to_json(decision))
        world.watch.say(f"{decision.verdict}: {decision.text}")
        if plan.gate.policy == "enforce":
            answerer.raise_outages()
        if decision.refuses:
            raise Refused(decision.reasons)

    with world.stage("train", run, facts, saves=True):
        facts.training = train(plan, dataset, session, run, world.watch)
        facts.problems += world.check_weights(facts.training)

    with world.stage("evaluate", run, facts):
        facts.evaluation = evaluate(plan, dataset, answerer, scoring, decision, run.folder("evaluation"))

    with world.stage("delivery", run, facts):
        assert facts.run_id is not None
        facts.delivery = deliver(plan, dataset, facts.training, facts.evaluation, answerer, scoring, run, facts.run_id)
        check_delivery(facts.delivery)

    with world.stage("roi", run, facts):
        facts.roi = compute_roi(plan, sum(facts.timings.values()) / 3600, facts.evaluation)
    answerer.raise_outages()
