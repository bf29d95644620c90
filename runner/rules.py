"""Rules between the manifest's keys, which its schema cannot say well; each fault has its place and its cure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from runner.backends import APPROACHES
from runner.document import Document, KeyPath, Value
from runner.errors import Problem
from runner.masking import is_environment_name, kind_of_secret
from runner.pushing import is_hub, target_fault
from runner.schema import read_schema, secret_problem

METRIC_NEEDS = {  # what a metric cannot do without: the key under eval, and an example of it
    "json_valid": ("json_schema", 'json_schema: "data/ticket.schema.json"'),
    "regex": ("pattern", 'pattern: "^[A-Z]{2}-[0-9]{5}$"'),
    "similarity": ("embedding", "embedding: sentence-transformers/all-MiniLM-L6-v2"),
    "judge": ("judge", "judge: {endpoint: {base_url: ..., model: ...}, rubric: ...}"),
}
ADAPTER_KEYS = ("rank", "alpha", "dropout", "target_modules", "rslora", "dora")  # under hyperparameters
ASKS_FOR_NOTHING = (None, False, "auto")  # and 0, which Python takes for False
LONGEST_NAME, LONGEST_PATH = 255, 4095  # bytes, on Linux; see pathconf(3)
OWN_NAMES = ("base", "tuned", "zero_shot", "instruction", "few_shot", "nearest", "judge", "forgetting")
RUN_ID_CHARACTERS = 10
OWN_FILES = ("judge-", "forgetting-")


def cross_rules(document: Document, problems: Sequence[Problem]) -> Iterator[Problem]:
    """Rules that join several keys, which the schema cannot say well; each looks only at keys without a problem."""
    faulty = {problem.where.key for problem in problems if problem.where.key}
    kind = document.get("approach", "kind")
    if "approach.kind" not in faulty and kind in APPROACHES and APPROACHES[kind].module is None:
        built = ", ".join(name for name, vendor in APPROACHES.items() if vendor.module)
        yield Problem(
            code="approach/not-built",
            what=f"The approach '{kind}' is not built yet.",
            where=document.where(("approach", "kind"), value=True),
            fix=f"Use one of: {built}.",
        )
    yield from _path_rules(document, faulty)
    yield from _data_rules(document, faulty)
    yield from _training_rules(document, faulty)
    yield from _eval_rules(document, faulty)
    yield from _gate_rules(document, faulty)
    yield from _price_rules(document, faulty)
    yield from _machine_rules(document, faulty)
    yield from _delivery_rules(document, faulty)


def secret_rules(document: Document) -> Iterator[Problem]:
    """Keys and tokens that stand in the manifest, wherever it is; known by their shape, or by where they stand."""
    for path, text in _texts(document.value, ()):
        key = ".".join(map(str, path))
        where = document.where(path, value=True)
        if kind := kind_of_secret(text):
            yield secret_problem(f"A secret ({kind}) stands at '{key}', in a file that others read.", where)
        elif path[-1] == "api_key_env" and not is_environment_name(text):
            what = f"'{key}' must name an environment variable; what stands there may be the key itself."
            yield secret_problem(what, where)


def _texts(value: Value, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Every text of a document, and where it stands."""
    if isinstance(value, str):
        yield path, value
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        yield from _texts(item, (*path, key))


def _is_faulty(faulty: set[str], *path: str | int) -> bool:
    """Whether there is a problem with a key, or with one below it."""
    key = ".".join(map(str, path))
    return any(fault == key or fault.startswith(f"{key}.") for fault in faulty)


def _path_rules(document: Document, faulty: set[str]) -> Iterator[Problem]:
    """No file system has names that long; to ask one for it fails as a broken disk does."""
    for path in (*_sources(document), ("approach", "model"), ("eval", "json_schema"), ("eval", "judge", "human")):
        text = document.get(*path)
        if isinstance(text, dict):
            path, text = (*path, "source"), text.get("source")
        if not isinstance(text, str) or "://" in text or _is_faulty(faulty, *path):
            continue
        if len(text.encode()) > LONGEST_PATH or any(len(part.encode()) > LONGEST_NAME for part in text.split("/")):
            yield Problem(
                code="manifest/path-too-long",
                what=f"'{'.'.join(map(str, path))}' is longer than a path, or a name in it, can be.",
                where=document.where(path, value=True),
                fix=f"A name may have {LONGEST_NAME} bytes, a path {LONGEST_PATH}.",
            )


def _sources(document: Document) -> Iterator[KeyPath]:
    """Every place under data that names a source."""
    for part in ("train", "dev", "test", "mix"):
        entries = document.get("data", part)
        yield from ((("data", part, i) for i in range(len(entries))) if isinstance(entries, list) else [("data", part)])


def _data_rules(document: Document, faulty: set[str]) -> Iterator[Problem]:
    """What a part is made of, and that a row's format and template fit together."""
    schema = read_schema("manifest")["properties"]["data"]["properties"]["split"]["properties"]
    shares = {part: schema[part]["default"] for part in ("dev", "test") if not document.get("data", part)}
    if not faulty.intersection(f"data.split.{part}" for part in shares):
        held_out = sum(document.get("data", "split", part, default=share) for part, share in shares.items())
        if held_out > 0.8:
            yield Problem(
                code="data/split",
                what=f"dev and test together take {held_out:.0%} of the rows, which leaves too little to train on.",
                where=document.where(("data", "split")),
                fix="Keep them at 0.8 or less together.",
            )
    for path in _templated(document):
        holder = document.get(*path)
        has_template = bool(holder.get("template") or document.get("data", "template"))
        name = holder.get("format", "auto")
        if name == "columns" and not has_template:
            yield Problem(
                code="data/template",
                what="The format 'columns' needs a template that says what the columns are.",
                where=document.where((*path, "format"), value=True),
                fix='For example  template: {prompt: "{{question}}", completion: "{{answer}}"}',
            )
        elif holder.get("template") and name not in ("auto", "columns"):
            yield Problem(
                code="data/template",
                what=f"A template reads columns, and the format is '{name}'.",
                where=document.where((*path, "template")),
                fix="Remove the template, or set format: columns.",
            )
    for i, entry in enumerate(document.get("data", "mix", default=[]) if "data.mix" not in faulty else ()):
        if isinstance(entry, dict) and (entry.get("fraction") is None) == (entry.get("rows") is None):
            yield Problem(
                code="data/mix",
                what="A mix takes either 'fraction' or 'rows'.",
                where=document.where(("data", "mix", i)),
                fix="For example  fraction: 0.1",
            )


def _templated(document: Document) -> Iterator[tuple[str | int, ...]]:
    """Every place under data that may name a format and a template."""
    if isinstance(document.get("data"), dict):
        yield ("data",)
    for part in ("train", "dev", "test", "mix"):
        entries = document.get("data", part)
        for i, entry in enumerate(entries if isinstance(entries, list) else ()):
            if isinstance(entry, dict):
                yield ("data", part, i)


def _training_rules(document: Document, faulty: set[str]) -> Iterator[Problem]:
    """A length and a batch are given in one way, every key has something to act on, and a batch holds any row."""
    section = "hyperparameters"

    def sound(key: str) -> bool:
        return not _is_faulty(faulty, section, key) and document.get(section, key) is not None

    for first, second in (("epochs", "max_steps"), ("batch_size", "batch_tokens")):
        if sound(first) and sound(second):
            yield Problem(
                code="hyperparameters/either-or",
                what=f"'{first}' and '{second}' say the same in two ways.",
                where=document.where((section, second)),
                fix=f"Keep one of them, and leave the other empty:  {first}: null",
            )
    if sound("batch_tokens") and not _is_faulty(faulty, section, "max_length"):
        default = read_schema("manifest")["properties"][section]["properties"]["max_length"]["default"]
        longest = document.get(section, "max_length", default=default)
        if (size := document.get(section, "batch_tokens")) < longest:
            yield Problem(
                code="hyperparameters/batch-tokens",
                what=f"A batch of {size} tokens cannot hold a row of max_length {longest}.",
                where=document.where((section, "batch_tokens"), value=True),
                fix=f"Write at least {longest}, or lower max_length.",
            )
    if document.get("approach", "kind") == "full":
        yield from _adapter_rules(document, faulty)


def _adapter_rules(document: Document, faulty: set[str]) -> Iterator[Problem]:
    """Keys that a full tune would not look at."""
    for path in (*(("hyperparameters", key) for key in ADAPTER_KEYS), ("delivery", "merge")):
        if not _is_faulty(faulty, *path) and document.get(*path) not in ASKS_FOR_NOTHING:
            yield Problem(
                code="hyperparameters/unused",
                what=f"'{'.'.join(path)}' is for adapters, and a full tune has none.",
                where=document.where(path),
                fix="Remove it, or set approach.kind to lora or qlora.",
            )


def _eval_rules(document: Document, faulty: set[str]) -> Iterator[Problem]:
    """Every metric has what it needs, and a name of its own."""
    entries = document.get("eval", "metrics", default=[])
    names: list[str] = []
    for i, entry in enumerate(entries if isinstance(entries, list) else ()):
        place = ("eval", "metrics", i)
        if _is_faulty(faulty, *place):
            continue
        own = isinstance(entry, dict)
        name = str(entry.get("name") or entry["python"].rpartition(":")[2]) if own else str(entry)
        if name in names or (own and name in metric_names()):
            yield Problem(
                code="eval/metric-name",
                what=f"Two metrics are called '{name}'.",
                where=document.where(place),
                fix="Give your own another name:  name: my_score",
            )
        names.append(name)
        key, example = METRIC_NEEDS.get(name, (None, "")) if not own else (None, "")
        if key and not document.get("eval", key):
            yield Problem(
                code="manifest/missing-key",
                what=f"The metric '{name}' needs the key '{key}' in 'eval'.",
                where=document.where(place),
                fix=f"For example  {example}",
            )
    pattern = document.get("eval", "pattern")
    if isinstance(pattern, str):
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:  # a count without bound, brackets without end
            yield Problem(
                code="eval/pattern",
                what=f"'eval.pattern' is no regular expression: {error}.",
                where=document.where(("eval", "pattern"), value=True),
                fix="Mend it; in YAML, single quotes leave backslashes alone.",
            )


def metric_names() -> list[str]:
    """The metrics that the schema knows."""
    names: list[str] = read_schema("manifest")["$defs"]["metric"]["then"]["enum"]
    return names


def _gate_rules(document: Document, faulty: set[str]) -> Iterator[Problem]:
    """Other models have names of their own, and a schema where their decoding is constrained."""
    models = document.get("gate", "models", default=[])
    names: dict[str, str] = {name: name for name in OWN_NAMES}
    for i, entry in enumerate(models if isinstance(models, list) else ()):
        if not isinstance(entry, dict) or _is_faulty(faulty, "gate", "models", i):
            continue
        name = str(entry.get("name") or entry["endpoint"]["model"])
        file = re.sub(r"[^\w.-]", "-", name).casefold()  # what its answers are kept under
        if file in names or file.startswith(OWN_FILES):
            same = names.get(file) == name
            what = f"Two arms are called '{name}'." if same else f"The arm '{name}' has the file name of another."
            yield Problem(
                code="gate/model-name",
                what=what,
                where=document.where(("gate", "models", i)),
                fix="Give the model another name:  name: large",
            )
        names.setdefault(file, name)
        if entry.get("constrained") and not document.get("eval", "json_schema"):
            yield Problem(
                code="manifest/missing-key",
                what="A constrained arm needs the key 'json_schema' in 'eval'.",
                where=document.where(("gate", "models", i, "constrained")),
                fix='For example  json_schema: "data/ticket.schema.json"',
            )


def _price_rules(document: Document, faulty: set[str]) -> Iterator[Problem]:
    """A cap in dollars needs the prices of what it caps."""
    priced: list[tuple[KeyPath, KeyPath]] = []
    if document.get("eval", "judge", "max_usd") and not _is_faulty(faulty, "eval", "judge", "max_usd"):
        priced.append((("eval", "judge", "max_usd"), ("eval", "judge", "endpoint")))
    if document.get("gate", "max_usd") and not _is_faulty(faulty, "gate", "max_usd"):
        models = document.get("gate", "models", default=[])
        ends = [("gate", "models", i, "endpoint") for i in range(len(models) if isinstance(models, list) else 0)]
        priced += [(("gate", "max_usd"), end) for end in ends]
        if document.get("budget", "usd_per_hour") is None:
            yield _unpriced(document, ("gate", "max_usd"), "budget", "usd_per_hour: 2.5")
    for cap, end in priced:
        prices = [document.get(*end, f"usd_per_million_{side}") for side in ("input", "output")]
        if None in prices:
            example = "usd_per_million_input: 2.0, usd_per_million_output: 8.0"
            yield _unpriced(document, cap, ".".join(map(str, end)), example)


def _unpriced(document: Document, cap: KeyPath, holder: str, example: str) -> Problem:
    return Problem(
        code="manifest/missing-key",
        what=f"'{'.'.join(map(str, cap))}' needs the prices in '{holder}'.",
        where=document.where(cap),
        fix=f"For example  {example}",
    )


def _machine_rules(document: Document, faulty: set[str]) -> Iterator[Problem]:
    """The machines that are asked for have what the run is told to use."""
    section = "resources"
    if _is_faulty(faulty, section) or _is_faulty(faulty, "approach") or not document.get(section):
        return
    gpus, gpu, nodes = (document.get(section, key) for key in ("gpus", "gpu", "nodes"))
    accelerator, processes = (document.get("approach", key) for key in ("accelerator", "processes"))
    if gpus == 0 and (gpu or accelerator == "required"):
        why = f"gpu: {gpu}" if gpu else "approach.accelerator: required"
        yield Problem(
            code="resources/no-gpu",
            what=f"No GPU is asked for, and '{why}' wants one.",
            where=document.where((section, "gpus"), value=True),
            fix="Write gpus: 1, or take the other one away.",
        )
    if accelerator == "none" and (gpu or gpus):
        yield Problem(
            code="resources/unused-gpu",
            what="GPUs are asked for, and approach.accelerator: none leaves them alone.",
            where=document.where((section, "gpu" if gpu else "gpus")),
            fix="Remove it, or set approach.accelerator to required.",
        )
    places = (nodes or 1) * max(1, gpus or 0)
    if isinstance(processes, int) and ((nodes or 1) > 1 or (gpus or 0) > 1) and processes != places:
        yield Problem(
            code="resources/processes",
            what=f"{nodes or 1} x {max(1, gpus or 0)} GPUs are asked for, and approach.processes is {processes}.",
            where=document.where(("approach", "processes"), value=True),
            fix="Write approach.processes: auto, one for each GPU.",
        )


def _delivery_rules(document: Document, faulty: set[str]) -> Iterator[Problem]:
    """The weights go to a place that there can be, and what is asked of it is something that it can be."""
    place = ("delivery", "to")
    if _is_faulty(faulty, "delivery"):
        return
    to = document.get(*place)
    suffix = len("-") + RUN_ID_CHARACTERS if document.get("sweep") else 0  # each point has a repository of its own
    if to is not None and (fault := target_fault(to, suffix)):
        what = f"'delivery.to' cannot be used. {fault[0]}"
        yield Problem(code="delivery/bad-url", what=what, where=document.where(place, value=True), fix=fault[1])
    elif document.get("delivery", "private") is not None and not (to and is_hub(to)):
        yield Problem(
            code="delivery/unused",
            what="'delivery.private' is for a repository of the hub; who reads a bucket is decided there.",
            where=document.where(("delivery", "private")),
            fix="Remove it, or write  to: hf://owner/name",
        )
