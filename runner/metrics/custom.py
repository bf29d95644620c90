"""A person's own metric: a Python function in a file beside the manifest, or in an installed module."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import math
import sys
import traceback
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from inspect import Parameter, signature
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from runner.errors import Exit, Problem, RunnerError, Where
from runner.metrics.base import SHARE, Answer, Metric, Score, unscored

if TYPE_CHECKING:
    from runner.plan.parts import CustomMetric

GIVEN = ("output", "expected", "prompt")
MAX_REASON_CHARS = 200
_FAILURES = (Exception, SystemExit)  # what a person's code may end in; Ctrl-C is not its doing


def load_metric(custom: CustomMetric) -> Metric:
    """The metric that the manifest names; raises RunnerError (78) when there is none, or when it cannot be called.

    The function is called with those of output, expected and prompt that it names, by keyword, once a row. It returns
    a number, a bool, or None where there is no score.
    """
    module_name, _, name = custom.python.partition(":")
    module = _load_module(module_name, custom)
    function, path = getattr(module, name, None), getattr(module, "__file__", None)
    if not hasattr(module, name):
        near = get_close_matches(name, [each for each in vars(module) if not each.startswith("_")], n=1)
        fix = f"Did you mean '{module_name}:{near[0]}'?" if near else f"Write the function {name} into it."
        raise _problem("function", f"'{module_name}' has no function '{name}'.", fix, path=path)
    if not callable(function):
        what = f"'{custom.python}' is of the type {type(function).__name__}, and cannot be called."
        raise _problem("not-callable", what, "Name a function.", path=path)
    given = _names(function, custom.python, path)

    def score(answer: Answer) -> Score:
        try:
            with _importable(custom.folder):
                value = function(**{each: getattr(answer, each) for each in given})
        except RunnerError:
            raise
        except _FAILURES as error:
            return unscored(_cut(f"raised {_said(error)}"))
        return _judge_value(value, custom.unit)

    return Metric(
        score=score,
        title=custom.name.replace("_", " "),
        higher_is_better=custom.higher_is_better,
        unit=custom.unit,
        bounds=SHARE if custom.unit == "share" else None,
    )


def _judge_value(value: Any, unit: str) -> Score:
    """What the function returned, as a score."""
    if value is None:
        return unscored("the metric gave None")
    import numpy as np

    if not isinstance(value, Real | np.bool_):
        return unscored(_cut(f"the metric gave a {type(value).__name__}, which is not a number"))
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        return unscored(f"the metric gave {number}, which is not a finite number")
    if unit == "share" and not SHARE[0] <= number <= SHARE[1]:
        return unscored(f"the metric gave {number:g}, and a share lies between 0 and 1")
    return Score(value=number)


def _names(function: Callable[..., Any], python: str, path: str | None) -> tuple[str, ...]:
    """The arguments to call it with; raises RunnerError when it needs others."""
    try:
        parameters = signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        what = f"It cannot be known which arguments '{python}' takes."
        raise _problem("arguments", what, "Wrap it in a function of your own.", path=path) from error
    by_keyword = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    rest = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)
    named = {each.name for each in parameters if each.kind in by_keyword}
    needed = [each.name for each in parameters if each.default is Parameter.empty and each.kind not in rest]
    unknown = [name for name in needed if name not in named or name not in GIVEN]
    if unknown:
        what = f"'{python}' needs '{unknown[0]}', which a metric is not given."
        raise _problem("arguments", what, f"Name only {', '.join(GIVEN)}, by keyword.", path=path)
    takes_all = any(each.kind is Parameter.VAR_KEYWORD for each in parameters)
    return tuple(name for name in GIVEN if takes_all or name in named)


def _load_module(name: str, custom: CustomMetric) -> ModuleType:
    """The file beside the manifest, else the installed module."""
    stem = custom.folder.absolute().joinpath(*name.split("."))
    path = next((each for each in (stem.with_name(f"{stem.name}.py"), stem / "__init__.py") if each.is_file()), None)
    try:
        return _load_file(path, custom.folder) if path else importlib.import_module(name)
    except _FAILURES as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if path is None and missing and f"{name}.".startswith(f"{missing}."):
            what = f"There is no {name.replace('.', '/')}.py beside the manifest, and no installed module '{name}'."
            raise _problem("missing", what, "Correct the name, or write the file.", path=str(custom.folder)) from error
        if isinstance(error, RunnerError):
            raise
        line = _line(error, path)
        what = _cut(f"'{name}' cannot be imported: {_said(error)}.")
        raise _problem("import", what, "Mend it.", path=str(path) if path else None, line=line) from error


def _load_file(path: Path, folder: Path) -> ModuleType:
    """Runs a file as a module of its own name, so that it hides none and no other hides it."""
    name = f"runner_metric_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses look for the module of a class
    try:
        with _importable(folder):
            spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """While open, modules beside the manifest can be imported."""
    before = list(sys.path)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = before


def _line(error: BaseException, path: Path | None) -> int | None:
    """The last line of the person's file that the error came through."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno for frame in reversed(frames) if frame.filename == str(path)), None)


def _said(error: BaseException) -> str:
    """Kind and first line of an error."""
    try:
        lines = str(error).splitlines()
    except Exception:  # its words are a person's code too
        lines = []
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _cut(text: str) -> str:
    return text if len(text) <= MAX_REASON_CHARS else f"{text[: MAX_REASON_CHARS - 1]}…"


def _problem(kind: str, what: str, fix: str, *, path: str | None = None, line: int | None = None) -> RunnerError:
    where = Where(path=path, line=line, key="eval.metrics")
    return RunnerError(Problem(code=f"eval/metric-{kind}", what=what, where=where, fix=fix), Exit.MANIFEST)
