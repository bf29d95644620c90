"""A JSON Schema's violations, each as a problem with its place and its cure."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from runner.document import Document, KeyPath, Value, describe_value, dotted, resolve
from runner.errors import Problem, Where
from runner.masking import is_secret_name


@cache
def read_schema(name: str) -> Mapping[str, Any]:
    """A schema by name (`manifest`, `report`): from the installed package, or from the repository."""
    here = Path(__file__).parent
    for folder in (here / "schemas", here.parent / "schemas"):
        path = folder / f"{name}.schema.json"
        if path.is_file():
            schema: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return schema
    raise FileNotFoundError(f"{name}.schema.json is not part of this installation")


def check_schema(document: Document, schema: Mapping[str, Any]) -> list[Problem]:
    """Every violation of a JSON Schema (2020-12); a whole number is one without a point or exponent."""
    errors = list(_strict_validator()(schema).iter_errors(document.value))
    mistyped = {tuple(error.absolute_path) for error in errors if error.validator == "type"}
    return [
        problem
        for error in errors
        if error.validator == "type" or not mistyped.intersection(_rests_on(error, schema))
        for problem in _schema_problems(error, document, schema)
    ]


@cache
def _strict_validator() -> Any:
    """The validator's class, made once: a sweep is checked point by point."""
    from jsonschema import Draft202012Validator, validators  # 0.1 s, and not needed when the YAML itself is faulty

    types = Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    return validators.extend(Draft202012Validator, type_checker=types)  # type: ignore[no-untyped-call]


def _rests_on(error: Any, root: Mapping[str, Any]) -> Iterator[KeyPath]:
    """The values that an error speaks of: when one has the wrong type, that alone is the fault."""
    path: KeyPath = tuple(error.absolute_path)
    yield path
    for cause in _conditional(error, root).get("if", {}).get("required", ()):
        yield (*path, cause)


def _conditional(error: Any, root: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema whose `then` is violated; empty when the error comes from none."""
    steps = list(error.absolute_schema_path)
    if "then" not in steps:
        return {}
    holder = root
    for step in steps[: steps.index("then")]:
        holder = _follow(holder[step], root)
    return holder


def _follow(schema: Mapping[str, Any], root: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a `$ref` of our own schema leads to; another schema as it is."""
    found: Mapping[str, Any] = root["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    return found


def _schema_problems(error: Any, document: Document, root: Mapping[str, Any]) -> Iterator[Problem]:
    path: KeyPath = tuple(error.absolute_path)
    key, keyword, rule, value = dotted(path), error.validator, error.validator_value, error.instance
    within = f" in '{key}'" if key else ""
    if keyword == "additionalProperties":
        known = error.schema.get("properties", {})
        for extra in [name for name in value if name not in known]:
            where, fix = document.where((*path, extra)), _key_hint(extra, known, root)
            if is_secret_name(extra):
                yield secret_problem(f"'{extra}'{within} would be a secret in a file that others read.", where)
                continue
            yield Problem(code="manifest/unknown-key", what=f"Unknown key '{extra}'{within}.", where=where, fix=fix)
        return
    where = document.where(path, value=True)
    if keyword == "required":
        missing = next(name for name in rule if name not in value and f"'{name}'" in error.message)
        holder = _conditional(error, root)
        entry = (holder or error.schema).get("properties", {}).get(missing, {})
        what, where = f"The key '{missing}' is missing{within}", document.where(path)
        if holder:
            cause = holder["if"]["required"][0]
            what, where = f"{what}; '{cause}' as written needs it", document.where((*path, cause), value=True)
        yield Problem(code="manifest/missing-key", what=f"{what}.", where=where, fix=_example(missing, entry))
    elif keyword == "type":
        what = f"'{key}' must be {_type_name(rule)}, not {describe_value(value)}."
        fix = _type_hint(value, error.schema) or _example(str(path[-1]), error.schema)
        yield Problem(code="manifest/wrong-type", what=what, where=where, fix=fix)
    elif keyword == "enum":
        what, fix = f"'{key}' cannot be {describe_value(value)}.", _choices(value, rule)
        yield Problem(code="manifest/bad-value", what=what, where=where, fix=fix)
    elif keyword in _LIMITS:
        what = f"'{key}' is {describe_value(value)}, which must be {_LIMITS[keyword]} {rule}."
        fix = f"Write a value {_range(error.schema)}."
        yield Problem(code="manifest/out-of-range", what=what, where=where, fix=fix)
    elif keyword == "uniqueItems":
        second = next(i for i, item in enumerate(value) if item in value[:i])
        what, where = f"{describe_value(value[second])} stands twice in '{key}'.", document.where((*path, second))
        yield Problem(code="manifest/bad-value", what=what, where=where, fix="Keep one of them.")
    else:
        phrase = _PHRASES.get(keyword, error.message).format(value=describe_value(value), rule=rule)
        fix = _slug(value, rule) if keyword == "pattern" else ""
        fix = fix or _example(str(path[-1]), error.schema)
        yield Problem(code="manifest/bad-value", what=f"'{key}' {phrase}.", where=where, fix=fix)


def secret_problem(what: str, where: Where) -> Problem:
    """A key or password stands in the manifest, which others read; it is not shown again."""
    return Problem(
        code="manifest/secret",
        what=what,
        where=where,
        fix="Take it out, and withdraw it if the file was shared. Set an environment variable (or NAME_FILE, a file "
        "that holds it); an endpoint names its variable:  api_key_env: JUDGE_KEY",
    )


_LIMITS = {
    "minimum": "at least",
    "exclusiveMinimum": "greater than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
}
_PHRASES = {
    "pattern": "is {value}, which does not have the form {rule}",
    "minLength": "must have {rule} or more characters",
    "minItems": "must have {rule} or more entries",
}
_TYPE_NAMES = {
    "object": "a group of keys",
    "array": "a list",
    "string": "text",
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "null": "empty",
}


def _type_name(rule: str | list[str]) -> str:
    return " or ".join(_TYPE_NAMES[name] for name in ([rule] if isinstance(rule, str) else rule))


def _choices(value: Value, allowed: list[str]) -> str:
    near = difflib.get_close_matches(str(value), allowed, n=1, cutoff=0.5)
    return (f"Did you mean '{near[0]}'? " if near else "") + "Allowed: " + ", ".join(allowed) + "."


def _type_hint(value: Value, schema: Mapping[str, Any]) -> str:
    kinds = {schema["type"]} if isinstance(schema["type"], str) else set(schema["type"])
    if "enum" in schema:
        return _choices(value, schema["enum"])
    if isinstance(value, str):
        number = _bare_number(value)
        if number and ("number" in kinds or ("integer" in kinds and isinstance(resolve(number), int))):
            return f"Write {number}; quotes, separators and leading zeros make it text."
        if "object" in kinds and (key := re.match(r"\w+:(?=\S)", value)):
            return f"Write a space after '{key[0]}'."
        if "array" in kinds:
            return f"Write [{describe_value(value)}]."
    elif "string" in kinds and isinstance(value, int | float):
        return "Put it in quotes."
    elif "integer" in kinds and isinstance(value, float):
        nearest = max(schema.get("minimum", -math.inf), min(round(value), schema.get("maximum", math.inf)))
        return f"Write {nearest}."
    return ""


def _bare_number(text: str) -> str:
    """The number that was meant by text such as `012`, `1_000`, `20,000` or `0,5`; empty when it is none."""
    bare = text.strip().replace("_", "")
    thousands = re.fullmatch(r"[-+]?[1-9][0-9]{0,2}(,[0-9]{3})+(\.[0-9]+)?", bare)
    bare = re.sub(r"^([-+]?)0+(?=[0-9])", r"\1", bare.replace(",", "" if thousands else "."))
    value = resolve(bare)
    return bare if type(value) in (int, float) and math.isfinite(value) else ""


def _slug(text: str, pattern: str) -> str:
    """A name of small letters for a key that takes nothing else; elsewhere it would be another thing's name."""
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return f"Write {slug}." if re.search(pattern, slug) and not re.search(pattern, "A.") else ""


def _range(schema: Mapping[str, Any]) -> str:
    parts = [f"{words} {schema[keyword]}" for keyword, words in _LIMITS.items() if keyword in schema]
    return " and ".join(parts)


def _example(key: str, schema: Mapping[str, Any]) -> str:
    examples = schema.get("examples") or ([schema["default"]] if schema.get("default") is not None else [])
    if not examples:
        return str(schema.get("description", ""))
    text = json.dumps(examples[0], ensure_ascii=False)
    return f"For example  {key}: {text}" if key else f"For example  {text}"


def _key_hint(extra: str, known: Mapping[str, Any], root: Mapping[str, Any]) -> str:
    plain = _squash(extra)
    near = [name for name in known if _squash(name) == plain]
    homes = [(section, name) for section, name in _keys(root, root) if _squash(name) == plain]
    if not near and not homes:
        near = difflib.get_close_matches(extra, known, n=1, cutoff=0.6)
    if near:
        return f"Did you mean '{near[0]}'?"
    if homes:
        sections = [f"in '{dotted(section)}'" if section else "at the top level" for section, _ in homes]
        return f"'{homes[0][1]}' belongs {' or '.join(sections)}."
    return "Known keys: " + ", ".join(known) + "."


@lru_cache(maxsize=1024)
def _squash(key: str) -> str:
    return re.sub("[-_ ]", "", key).lower()


def _keys(schema: Mapping[str, Any], root: Mapping[str, Any], section: KeyPath = ()) -> Iterator[tuple[KeyPath, str]]:
    """Every key of the schema with the section that it belongs in."""
    for name, entry in _follow(schema, root).get("properties", {}).items():
        yield section, name
        yield from _keys(entry, root, (*section, name))
