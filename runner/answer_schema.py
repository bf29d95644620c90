"""The JSON Schema that answers must satisfy, where the manifest names one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from runner.errors import Exit, Problem, RunnerError, Where
from runner.files import read_small
from runner.plan import EvalPlan

MAX_BYTES = 1 << 20


def read_answer_schema(plan: EvalPlan) -> Mapping[str, Any] | None:
    """The JSON Schema of answers; raises RunnerError (66 missing, 78 not a schema)."""
    if plan.json_schema is None:
        return None
    where = Where(path=str(plan.json_schema), key="eval.json_schema")
    try:
        schema: Mapping[str, Any] = json.loads(read_small(plan.json_schema, MAX_BYTES))
    except OSError as error:
        what = f"The JSON Schema of answers cannot be read: {error.strerror}."
        problem = Problem(code="eval/schema-missing", what=what, where=where, fix="Correct eval.json_schema.")
        raise RunnerError(problem, Exit.INPUT_MISSING) from error
    except (ValueError, RecursionError) as error:
        problem = Problem(code="eval/schema-invalid", what=f"Not JSON: {error}.", where=where, fix="Mend the file.")
        raise RunnerError(problem, Exit.MANIFEST) from error
    from jsonschema import Draft202012Validator, SchemaError

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        what = f"Not a JSON Schema: {error.message}."
        problem = Problem(code="eval/schema-invalid", what=what, where=where, fix="Mend the file.")
        raise RunnerError(problem, Exit.MANIFEST) from error
    return schema
