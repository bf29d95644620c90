"""A sweep's points: what they are, that each is the run that the manifest with its values would be, and bad sweeps."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.errors import Exit, Problem, RunnerError
from runner.identity import identify
from runner.manifest import Manifest, load_manifest
from runner.sweep import ALONE, chosen_point, point_directory, points
from tests.errors import call

ROWS = "".join(json.dumps({"prompt": f"say {i}", "completion": f"{i}"}) + "\n" for i in range(60))
RANKS = {"hyperparameters.rank": [8, 16]}
GRID = {"hyperparameters": {"learning_rate": [1e-4, 2e-4]}, **RANKS}
HOSTILE = [
    'Say "yes"\t\x7f\u2028 é',
    None,
    "007",
    "it's: [x]",
    "plain",
    "-x",
    "@x",
    "yes",
    "a=b",
    " ",
    "# no",
    "12",
    "1e3",
    "null",
    "true",
    "~",
]


class Writer:
    """Writes a manifest with a sweep into a folder."""

    def __init__(self, folder: Path):
        self.path = folder / "m.yaml"
        (folder / "rows.jsonl").write_text(ROWS)

    def __call__(self, sweep: Any, **more: Any) -> Manifest:
        self.text(sweep, **more)
        return load_manifest(self.path)

    def text(self, sweep: Any, **more: Any) -> None:
        manifest = {
            "name": "tickets",
            "data": {"train": "rows.jsonl"},
            "approach": {"kind": "lora", "model": "org/model@main"},
            "gate": {"task": "format"},
            **more,
        }
        self.path.write_text(json.dumps(manifest | ({} if sweep is None else {"sweep": sweep})))


@pytest.fixture
def write(tmp_path: Path) -> Writer:
    return Writer(tmp_path)


def problems_of(write: Writer, sweep: Any, *overrides: str, **more: Any) -> tuple[Problem, ...]:
    write.text(sweep, **more)
    with pytest.raises(RunnerError) as caught:
        load_manifest(write.path, overrides)
    assert caught.value.exit_code == Exit.MANIFEST
    return caught.value.problems


# --- points ---------------------------------------------------------------------------------------------------------


def test_a_grid_is_every_combination_the_last_key_and_the_seeds_varying_fastest(write: Writer) -> None:
    found = points(write({"grid": GRID, "seeds": [1, 2]}))
    assert [(point.number, point.label) for point in found[:3]] == [
        (0, "learning_rate=0.0001,rank=8,seed=1"),
        (1, "learning_rate=0.0001,rank=8,seed=2"),
        (2, "learning_rate=0.0001,rank=16,seed=1"),
    ]
    assert found[7].overrides == ("hyperparameters.learning_rate=0.0002", "hyperparameters.rank=16", "seed=2")
    assert found[7].manifest.values["hyperparameters"] == {"learning_rate": 2e-4, "rank": 16}
    assert "sweep" not in found[7].manifest.values


def test_points_have_names_and_keys_dotted_or_nested(write: Writer) -> None:
    sweep = {"points": {"as-is": {}, "large": {"hyperparameters.rank": 64, "approach": {"kind": "qlora"}}}}
    first, second = points(write(sweep, hyperparameters={"epochs": 2}))
    assert (first.label, first.overrides) == ("as-is", ())
    assert second.overrides == ("hyperparameters.rank=64", "approach.kind=qlora")
    assert second.manifest.values["approach"] == {"kind": "qlora", "model": "org/model@main"}
    assert second.manifest.values["hyperparameters"] == {"epochs": 2, "rank": 64}


def test_seeds_alone_repeat_the_manifest(write: Writer) -> None:
    assert [point.manifest.values["seed"] for point in points(write({"seeds": [3, 1]}))] == [3, 1]


def test_a_manifest_without_a_sweep_has_no_points(write: Writer) -> None:
    assert points(write(None)) == ()


@pytest.mark.parametrize(
    "sweep",
    [
        {"grid": GRID, "seeds": [1, 2]},
        {"grid": {"data.system": HOSTILE, "hyperparameters.learning_rate": [1e-5, 1, 0.1 + 0.2e-9]}},
        {
            "points": {
                "a": {"eval": {"metrics": ["chrf"]}, "roi": None},
                "b": {"data.train": [{"source": "rows.jsonl"}]},
            }
        },
        {"grid": {"data.split.dev": [0.1, 0.2], "gate.target": [None, 0.5], "eval.metrics": [["chrf"], ["loss"]]}},
    ],
)
def test_a_point_is_the_run_of_the_manifest_without_sweep_and_with_its_values_set(write: Writer, sweep: Any) -> None:
    found = points(write(sweep))
    assert len({point.run_id for point in found}) == len(found)
    write(None)
    for point in found:
        assert identify(load_manifest(write.path, point.overrides)) == point.run_id


def test_a_point_is_repeated_by_what_its_manifest_says_was_set(write: Writer) -> None:
    point = points(write({"grid": GRID}))[1]
    assert point.manifest.overrides == (ALONE, *point.overrides)
    assert identify(load_manifest(write.path, point.manifest.overrides)) == point.run_id


def test_other_points_and_their_order_change_no_run_id(write: Writer) -> None:
    few = {point.overrides: point.run_id for point in points(write({"grid": RANKS}))}
    more = points(write({"grid": {"hyperparameters.rank": [4, 16, 8]}, "max_points": 9}))
    assert few == {point.overrides: point.run_id for point in more if point.overrides in few}


def test_values_set_on_the_command_line_hold_for_every_point(write: Writer) -> None:
    write({"grid": RANKS})
    found = points(load_manifest(write.path, ["hyperparameters.epochs=3", "sweep.seeds=[5]"]))
    assert [point.manifest.values["hyperparameters"] for point in found] == [
        {"epochs": 3, "rank": 8},
        {"epochs": 3, "rank": 16},
    ]
    assert found[0].label == "rank=8,seed=5"
    assert points(load_manifest(write.path, [ALONE])) == ()


def test_labels_can_name_directories_and_differ(write: Writer) -> None:
    texts = ["../../etc", "a" * 500, "b" + "a" * 500, "~", "", "é", "..", "a/b", "a b"]
    labels = [point.label for point in points(write({"grid": {"data.system": texts, "description": ["x"]}}))]
    assert len(set(labels)) == len(texts)
    assert all(len(label) <= 120 and "/" not in label and not label.startswith(".") for label in labels), labels


def test_a_directory_is_known_by_the_run_id_whatever_else_is_swept_now(write: Writer, tmp_path: Path) -> None:
    rank = {"hyperparameters.rank": [8]}
    before = points(write({"grid": rank}, data={"train": "rows.jsonl", "long_rows": "drop"}))[0]
    after = points(write({"grid": {**rank, "data.long_rows": ["drop"]}}))[0]
    assert before.run_id == after.run_id and before.label != after.label
    point_directory(tmp_path, before).mkdir()
    assert point_directory(tmp_path, after) == point_directory(tmp_path, before)


@pytest.mark.parametrize(("option", "variable", "number"), [("1", "0", 1), (None, "1", 1), (None, "", None)])
def test_the_command_line_or_the_environment_chooses_a_point(
    write: Writer, option: str | None, variable: str, number: int | None
) -> None:
    point = chosen_point(write({"grid": RANKS}), option, {"RUNNER_POINT": variable})
    assert (point.number if point else None) == number


@pytest.mark.parametrize("told", ["2", "-1", "x", "1.0", "٣", "9" * 5000])
def test_a_point_that_there_is_not_is_refused(write: Writer, told: str) -> None:
    with pytest.raises(RunnerError, match="the sweep has points 0 to 1") as caught:
        chosen_point(write({"grid": RANKS}), None, {"RUNNER_POINT": told})
    assert (caught.value.exit_code, caught.value.problems[0].where.path) == (Exit.USAGE, "RUNNER_POINT")


def test_a_point_of_a_manifest_without_sweep_is_refused(write: Writer) -> None:
    with pytest.raises(RunnerError, match="has no sweep"):
        chosen_point(write(None), "0", {})


# --- bad sweeps; tests/errors/sweep-*.yaml has the screens -----------------------------------------------------------


@pytest.mark.parametrize(
    ("sweep", "code"),
    [
        ({}, "sweep/empty"),
        ({"points": {}}, "sweep/empty"),
        ([], "manifest/wrong-type"),
        ({"grid": [1]}, "manifest/wrong-type"),
        ({"seeds": []}, "manifest/bad-value"),
        ({"seeds": [1, 1]}, "manifest/bad-value"),
        ({"seeds": [-1]}, "manifest/out-of-range"),
        ({"seed": [1]}, "manifest/unknown-key"),
        ({"points": {"a": 8}}, "manifest/wrong-type"),
        ({"grid": {"a..b": [1]}}, "manifest/unknown-key"),
        ({"grid": {"": [1]}}, "manifest/unknown-key"),
        ({"grid": {"hyperparameters": {}}}, "sweep/no-values"),
        ({"grid": {"sweep.seeds": [[1]]}}, "sweep/fixed-key"),
        ({"grid": {"resources.gpus": [1, 2]}}, "sweep/fixed-key"),
        ({"grid": {"data.mix.0.rows": [1, 2]}}, "manifest/wrong-type"),
        ({"grid": {"approach.kind.x": [1]}}, "manifest/wrong-type"),
        ({"points": {"a": {"roi": None, "roi.one_time_usd": 3}}}, "sweep/key-twice"),
        ({"points": {"a": {"seed": 1}, "b": {}}, "seeds": [1]}, "sweep/key-twice"),
        ({"points": {"a": {}, "b": {}}}, "sweep/same-points"),
        ({"grid": {"hyperparameters.rank": [8, 8.0]}}, "manifest/wrong-type"),
        ({"grid": RANKS, "max_points": 1}, "sweep/too-many-points"),
        ({"grid": RANKS, "max_points": 1001}, "manifest/out-of-range"),
        ({"grid": {"api_key": ["x"]}}, "manifest/secret"),
        ({"points": {"a": {"data.system": "hf_abcdefghijklmnopqrstuvwxyzABCDEFGH"}}}, "manifest/secret"),
    ],
)
def test_a_bad_sweep_is_a_problem_with_place_and_cure(write: Writer, sweep: Any, code: str) -> None:
    found = problems_of(write, sweep)
    assert [problem.code for problem in found] == [code], found
    assert found[0].where.line and found[0].fix


def test_ten_thousand_points_are_refused_before_one_is_made(write: Writer) -> None:
    values = list(range(1, 101))
    started = time.perf_counter()
    (problem,) = problems_of(write, {"grid": {"hyperparameters.rank": values, "hyperparameters.alpha": values}})
    assert "10,000 points" in problem.what and "sweep.points" in problem.fix and "max_points" not in problem.fix
    assert time.perf_counter() - started < 2


def test_a_key_that_is_swept_and_set_is_refused_not_ignored(write: Writer) -> None:
    (problem,) = problems_of(write, {"grid": RANKS}, "hyperparameters.rank=4")
    assert problem.code == "sweep/set-key"


def test_faults_of_the_manifest_and_of_its_points_are_shown_at_once_and_each_once(write: Writer) -> None:
    found = problems_of(write, {"grid": {"hyperparameters.rank": [8, 0]}, "seeds": [1, 2]}, eval={"margin": 2})
    assert [(problem.code, problem.where.key) for problem in found] == [
        ("manifest/out-of-range", "eval.margin"),
        ("manifest/out-of-range", "hyperparameters.rank"),
    ]


def test_a_point_that_is_no_manifest_is_told_by_its_name(write: Writer) -> None:
    (problem,) = problems_of(write, {"grid": {"hyperparameters.batch_tokens": [64, 4096], "data.long_rows": ["drop"]}})
    assert problem.what.startswith("Point 'batch_tokens=64,long_rows=drop': A batch of 64 tokens cannot hold")


def test_paths_of_every_point_are_held_to_the_roots(write: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNNER_ROOTS", str(write.path.parent))
    write({"grid": {"data.train": ["rows.jsonl", "/etc/passwd"]}})
    code, screen = call("validate", str(write.path))
    assert (code, "[manifest/outside]" in screen) == (Exit.MANIFEST, True)


def test_keys_that_a_point_will_ask_for_are_noted(write: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTHER_KEY", raising=False)
    ends = [{"base_url": "https://m.test/v1", "model": "m", "api_key_env": "OTHER_KEY"}]
    write({"points": {"other": {"gate.models": [{"endpoint": end} for end in ends]}}})
    code, screen = call("validate", str(write.path))
    assert (code, "The key OTHER_KEY is not set here." in screen) == (Exit.DONE, True)


# --- anything -------------------------------------------------------------------------------------------------------

KEYS = st.sampled_from(
    [
        *(
            "hyperparameters.rank",
            "hyperparameters",
            "rank",
            "seed",
            "approach.kind",
            "approach",
            "eval.metrics",
            "roi",
        ),
        *("data.train", "data.mix", "data.mix.0", "gate.policy", "name", "sweep", "budget", "budget.max_usd", "", "."),
        *("a.b", "hyperparameters.rank.x", "eval.judge", "eval.judge.endpoint", "gate.models", "données"),
    ]
)
TEXT = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 300) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
LIKELY = {
    "hyperparameters.rank": st.none() | st.integers(0, 40),
    "hyperparameters.learning_rate": st.floats(0, 1.5),
    "data.system": st.none() | TEXT,
    "description": TEXT,
    "approach.kind": st.sampled_from(["lora", "qlora", "full"]),
    "eval.metrics": st.lists(st.sampled_from(["chrf", "loss", "judge"]), min_size=1, max_size=2),
    "data.split": st.fixed_dictionaries({"dev": st.floats(0.01, 0.9)}),
}
LIKELY_GRIDS = st.fixed_dictionaries({}, optional={key: st.lists(v, max_size=3) for key, v in LIKELY.items()})
LIKELY_POINTS = st.dictionaries(st.sampled_from("abc"), st.fixed_dictionaries({}, optional=LIKELY), max_size=3)
GRIDS = st.dictionaries(KEYS, VALUES | st.lists(VALUES, max_size=4), max_size=4)
SEEDS = {"seeds": st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True)}
LIKELY_SWEEPS = st.fixed_dictionaries({"grid": LIKELY_GRIDS}, optional=SEEDS)
LIKELY_SWEEPS |= st.fixed_dictionaries({"points": LIKELY_POINTS}, optional=SEEDS)
SWEEPS = (
    LIKELY_SWEEPS
    | VALUES
    | st.fixed_dictionaries(
        {},
        optional={
            "grid": GRIDS | VALUES,
            "points": st.dictionaries(TEXT | st.just("a"), GRIDS, max_size=3) | VALUES,
            "seeds": st.lists(st.integers(0, 9), max_size=3) | VALUES,
            "max_points": VALUES,
        },
    )
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SWEEPS)
def test_any_sweep_is_points_that_can_be_repeated_or_problems_with_a_place(write: Writer, sweep: Any) -> None:
    write.text(sweep or {})
    refused, found = None, ()
    try:
        found = points(load_manifest(write.path))
    except RunnerError as error:
        refused = error
    if refused:
        assert refused.exit_code == Exit.MANIFEST and refused.problems
        assert all(problem.where.line and problem.where.path for problem in refused.problems), refused.problems
        return
    assert found and len({point.run_id for point in found}) == len(found)
    for point in found:
        assert identify(load_manifest(write.path, (ALONE, *point.overrides))) == point.run_id
        assert point.label == Path(point.label).name and len(point.label.encode()) <= 200


@pytest.mark.parametrize(("to", "between"), [("s3://bucket/models", "/"), ("hf://owner/name", "-")])
def test_the_weights_of_each_point_go_to_a_place_of_its_own(write: Writer, to: str, between: str) -> None:
    manifest = write({"grid": RANKS}, delivery={"to": to})
    places = [point.manifest.values["delivery"]["to"] for point in points(manifest)]
    assert len(set(places)) == 2 and all(place.startswith(f"{to}{between}") for place in places)
    assert manifest.values["delivery"]["to"] == to
    assert [point.run_id for point in points(manifest)] == [point.run_id for point in points(write({"grid": RANKS}))]
