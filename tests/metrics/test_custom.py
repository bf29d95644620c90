"""A person's own metric, from a file that a test writes."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent

import pytest

from runner.errors import Exit, RunnerError
from runner.metrics import Answer, Metric, Score, load_metric
from runner.plan.parts import CustomMetric

ANSWER = Answer(output="Hello Ann", expected="Hello", prompt="greet Ann")


def load(
    folder: Path, source: str, python: str = "scores:polite", *, unit: str = "share", higher_is_better: bool = True
) -> Metric:
    path = folder.joinpath(*python.partition(":")[0].split("."))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".py").write_text(dedent(source))
    custom = CustomMetric(name="how_polite", python=python, folder=folder, higher_is_better=higher_is_better, unit=unit)
    return load_metric(custom)


def installed(folder: Path, python: str) -> Metric:
    return load_metric(
        CustomMetric(name="installed", python=python, folder=folder, higher_is_better=True, unit="share")
    )


def refused(folder: Path, source: str, python: str = "scores:polite") -> RunnerError:
    with pytest.raises(RunnerError) as caught:
        load(folder, source, python)
    assert caught.value.exit_code == Exit.MANIFEST
    (problem,) = caught.value.problems
    assert problem.where.key == "eval.metrics"
    assert problem.fix
    return caught.value


@pytest.mark.parametrize(
    ("signature", "names"),
    [
        ("output", {"output"}),
        ("expected, output", {"output", "expected"}),
        ("prompt, *, output", {"output", "prompt"}),
        ("**given", {"output", "expected", "prompt"}),
        ("output, **others", {"output", "expected", "prompt"}),
        ("output, strict=True, *rest", {"output"}),
        ("", set()),
    ],
)
def test_a_metric_is_called_with_what_it_names(tmp_path: Path, signature: str, names: set[str]) -> None:
    texts = {"output": "Hello Ann", "expected": "Hello", "prompt": "greet Ann"}
    source = f"""
    WANTED = { ({name: texts[name] for name in names})!r}
    def polite({signature}):
        seen = locals()
        seen.update(seen.pop("given", {{}}) or seen.pop("others", {{}}))
        return {{k: v for k, v in seen.items() if k not in ("strict", "rest")}} == WANTED
    """
    assert load(tmp_path, source).score(ANSWER) == Score(value=1)


def test_a_metric_is_read_as_the_manifest_says(tmp_path: Path) -> None:
    metric = load(tmp_path, "def polite(output): return len(output)", unit="characters", higher_is_better=False)
    assert metric.score(ANSWER) == Score(value=9)
    assert (metric.title, metric.unit, metric.bounds, metric.higher_is_better, metric.needs) == (
        "how polite",
        "characters",
        None,
        False,
        None,
    )
    assert load(tmp_path, "def polite(output): return 1").bounds == (0, 1)


@pytest.mark.parametrize(
    ("returned", "value"),
    [
        ("0.25", 0.25),
        ("1", 1),
        ("True", 1),
        ("False", 0),
        ("__import__('numpy').float32(0.5)", 0.5),
        ("__import__('numpy').bool_(True)", 1),
        ("__import__('fractions').Fraction(1, 4)", 0.25),
    ],
)
def test_a_number_or_a_bool_is_a_score(tmp_path: Path, returned: str, value: float) -> None:
    assert load(tmp_path, f"def polite(output): return {returned}").score(ANSWER) == Score(value=value)


@pytest.mark.parametrize(
    ("returned", "reason"),
    [
        ("None", "the metric gave None"),
        ("float('nan')", "the metric gave nan, which is not a finite number"),
        ("float('-inf')", "the metric gave -inf, which is not a finite number"),
        ("10 ** 400", "the metric gave inf, which is not a finite number"),
        ("'high'", "the metric gave a str, which is not a number"),
        ("[1]", "the metric gave a list, which is not a number"),
        ("1j", "the metric gave a complex, which is not a number"),
        ("1.5", "the metric gave 1.5, and a share lies between 0 and 1"),
        ("-1", "the metric gave -1, and a share lies between 0 and 1"),
    ],
)
def test_what_is_no_score_leaves_the_row_unscored(tmp_path: Path, returned: str, reason: str) -> None:
    found = load(tmp_path, f"def polite(output): return {returned}").score(ANSWER)
    assert found == Score(value=None, reason=reason)


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("raise ValueError('no greeting\\nat all')", "raised ValueError: no greeting"),
        ("raise ValueError", "raised ValueError"),
        ("import sys; sys.exit(3)", "raised SystemExit: 3"),
        ("return polite(output)", "raised RecursionError: maximum recursion depth exceeded"),
        ("raise Odd", "raised Odd"),
    ],
)
def test_a_metric_that_raises_loses_only_its_row(tmp_path: Path, statement: str, reason: str) -> None:
    source = f"""
    class Odd(Exception):
        def __str__(self): raise TypeError("no words")
    def polite(output):
        if output == "fine":
            return 1
        {statement}
    """
    metric = load(tmp_path, source)
    found = metric.score(ANSWER)
    assert found.value is None and (found.reason or "").startswith(reason)
    assert metric.score(Answer(output="fine", expected="")) == Score(value=1)


def test_a_long_reason_is_cut(tmp_path: Path) -> None:
    found = load(tmp_path, "def polite(output): raise ValueError('x' * 1000)").score(ANSWER)
    assert found.reason is not None and len(found.reason) == 200 and found.reason.endswith("x…")


def test_the_person_can_still_stop_the_run(tmp_path: Path) -> None:
    metric = load(tmp_path, "def polite(output): raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        metric.score(ANSWER)


def test_a_file_beside_the_manifest_hides_no_module_and_is_hidden_by_none(tmp_path: Path) -> None:
    metric = load(tmp_path, "def polite(output): return 0.5", "statistics:polite")
    assert metric.score(ANSWER) == Score(value=0.5)
    import statistics

    assert not hasattr(statistics, "polite")


def test_two_files_of_one_name_stay_apart(tmp_path: Path) -> None:
    one = load(tmp_path / "a", "LEVEL = 0.25\ndef polite(output): return LEVEL")
    other = load(tmp_path / "b", "LEVEL = 0.75\ndef polite(output): return LEVEL")
    assert (one.score(ANSWER).value, other.score(ANSWER).value) == (0.25, 0.75)


def test_a_metric_can_import_what_stands_beside_it_and_the_path_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "greetings_at_top.py").write_text("LEVEL = 0.25")
    (tmp_path / "greetings_inside.py").write_text("LEVEL = 0.5")
    before = list(sys.path)
    source = """
    from __future__ import annotations
    from dataclasses import dataclass
    import greetings_at_top
    @dataclass
    class Level:
        value: float
    def polite(output):
        import greetings_inside
        return Level(greetings_at_top.LEVEL + greetings_inside.LEVEL).value
    """
    assert load(tmp_path, source).score(ANSWER) == Score(value=0.75)
    assert sys.path == before


def test_a_module_may_stand_in_a_folder_or_be_a_package(tmp_path: Path) -> None:
    assert load(tmp_path, "def polite(output): return 0.5", "own.scores:polite").score(ANSWER).value == 0.5
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "__init__.py").write_text("def polite(output): return 0.25")
    assert installed(tmp_path, "whole:polite").score(ANSWER).value == 0.25


def test_an_installed_module_is_found_too(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "installed_scores.py").write_text("def polite(output): return 0.5")
    sys.path.insert(0, str(tmp_path / "elsewhere"))
    try:
        assert installed(tmp_path, "installed_scores:polite").score(ANSWER) == Score(value=0.5)
    finally:
        sys.path.remove(str(tmp_path / "elsewhere"))


@pytest.mark.parametrize("python", ["absent:polite", "absent.deeper:polite", "json.absent:polite"])
def test_a_module_that_is_nowhere_is_a_problem(tmp_path: Path, python: str) -> None:
    with pytest.raises(RunnerError) as caught:
        installed(tmp_path, python)
    (problem,) = caught.value.problems
    assert problem.code == "eval/metric-missing"
    assert f"{python.partition(':')[0].replace('.', '/')}.py beside the manifest" in problem.what
    assert problem.where.key == "eval.metrics" and caught.value.exit_code == Exit.MANIFEST


def test_a_function_that_is_not_there_is_a_problem_with_the_nearest_name(tmp_path: Path) -> None:
    (problem,) = refused(tmp_path, "def politeness(output): return 1", "scores:politness").problems
    assert problem.code == "eval/metric-function"
    assert problem.what == "'scores' has no function 'politness'."
    assert problem.fix == "Did you mean 'scores:politeness'?"
    assert problem.where.path == str(tmp_path / "scores.py")


@pytest.mark.parametrize("value", ["3", "None"])
def test_what_cannot_be_called_is_a_problem(tmp_path: Path, value: str) -> None:
    (problem,) = refused(tmp_path, f"polite = {value}").problems
    assert problem.code == "eval/metric-not-callable"


@pytest.mark.parametrize(
    "signature", ["output, reference", "*, reference", "output, /", "output, expected, prompt, n", "*texts, n"]
)
def test_an_argument_that_we_do_not_give_is_a_problem(tmp_path: Path, signature: str) -> None:
    (problem,) = refused(tmp_path, f"def polite({signature}): return 1").problems
    assert problem.code == "eval/metric-arguments"
    name = signature.removesuffix(", /").split(", ")[-1]
    assert problem.what == f"'scores:polite' needs '{name}', which a metric is not given."
    assert "output, expected, prompt" in problem.fix


@pytest.mark.parametrize(
    ("source", "line", "said"),
    [
        ("x = 1\n\nraise ValueError('no such thing')\n", 3, "ValueError: no such thing"),
        ("x = 1\ndef polite(output)\n    return 1\n", 2, "SyntaxError: expected ':'"),
        ("import json\nimport absent_package\n", 2, "ModuleNotFoundError: No module named 'absent_package'"),
        ("import sys\nsys.exit('bye')\n", 2, "SystemExit: bye"),
        ("import json\n\njson.loads('{')\n", 3, "JSONDecodeError"),
    ],
)
def test_a_file_that_cannot_be_imported_is_a_problem_with_its_line(
    tmp_path: Path, source: str, line: int, said: str
) -> None:
    modules, path = set(sys.modules), list(sys.path)
    (problem,) = refused(tmp_path, source).problems
    assert problem.code == "eval/metric-import"
    assert said in problem.what
    assert (problem.where.path, problem.where.line) == (str(tmp_path / "scores.py"), line)
    assert sys.path == path
    assert not [name for name in set(sys.modules) - modules if name.startswith("runner_metric")]


def test_each_load_begins_afresh(tmp_path: Path) -> None:
    source = "calls = 0\ndef polite(output):\n    global calls\n    calls += 1\n    return 1 / calls"
    assert [load(tmp_path, source).score(ANSWER).value for _ in range(2)] == [1, 1]
