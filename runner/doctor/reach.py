"""What the manifest needs from outside: servers that answer, credentials that are there, and a clock that TLS bears."""

from __future__ import annotations

import email.utils
import functools
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import runner
from runner.backends.wandb import Refused, Unreachable, check_login, has_login
from runner.credentials import OF_LIBRARIES, keys_named_in, read_files
from runner.data.reading.clients import is_http, make_request
from runner.data.reading.sources import is_hub, is_url
from runner.doctor.checks import Check, Patient, fail, failed, ok, unknown, warning
from runner.errors import Exit, RunnerError
from runner.masking import masked
from runner.mirror import look_at_mirror
from runner.plan import model_reference, without_secrets
from runner.pushing import destination, open_place

TIMEOUT_SECONDS = 5.0
HUB = "https://huggingface.co"
BAD_CLOCK_SECONDS, ODD_CLOCK_SECONDS = 86_400, 300  # beyond a day certificates fail, and tokens well before
YES = ("1", "ON", "YES", "TRUE")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A server's status, or why there is none; `date` is its clock in seconds since 1970."""

    status: int | None
    reason: str = ""
    date: float | None = None


def look_outside(patient: Patient) -> Iterator[Check]:
    """Asks all servers at once, each for a few seconds."""
    secrets, faults = _secrets(patient)
    yield from faults
    yield from _keys(patient, secrets)
    asked = list(_questions(patient, {**patient.environment, **secrets}))
    with ThreadPoolExecutor(max_workers=8) as pool:
        found = list(pool.map(lambda question: question(), asked))
    yield from (check for check, _ in found)
    yield _clock([date for _, date in found if date is not None], bool(found))


def _secrets(patient: Patient) -> tuple[dict[str, str], list[Check]]:
    """What files hold, and what is wrong with them."""
    named = keys_named_in(patient.manifest.values).values() if patient.manifest else ()
    try:
        return read_files(patient.environment, named), []
    except RunnerError as error:
        return {}, [fail("credentials", problem.what, problem.fix, error.exit_code) for problem in error.problems]


def _keys(patient: Patient, secrets: Mapping[str, str]) -> Iterator[Check]:
    """By name: which are there, and which the manifest's endpoints miss."""
    named = list(dict.fromkeys(keys_named_in(patient.manifest.values).values())) if patient.manifest else []
    present = [name for name in (*named, *OF_LIBRARIES) if patient.environment.get(name) or name in secrets]
    missing = [name for name in named if name not in present]
    if missing:
        what = f"not set: {', '.join(missing)}"
        fix = " and ".join(f"set {name}, or {name}_FILE to a file that holds it" for name in missing) + "."
        yield fail("credentials", what, fix[0].upper() + fix[1:], Exit.CREDENTIALS)
    else:
        yield ok("credentials", f"present: {', '.join(dict.fromkeys(present)) or 'none, and none is named'}")


Found = tuple[Check, float | None]


def _questions(patient: Patient, environment: Mapping[str, str]) -> Iterator[Callable[[], Found]]:
    """What to ask whom. Nothing is asked of the hub where it is offline, or where the cache has the model."""
    if patient.url:
        yield functools.partial(
            _ask_place, "mirror", patient.url, functools.partial(look_at_mirror, patient.url, patient.run_id)
        )
    if patient.manifest is None:
        return
    values = patient.manifest.values
    for name in dict.fromkeys(_hub_names(patient)):
        yield functools.partial(_ask_hub, name, environment, kind="models")
    for source in dict.fromkeys(_sources(values["data"])):
        if is_hub(source):
            yield functools.partial(_ask_hub, source.partition(":")[0], environment, kind="datasets")
        elif is_url(source):
            yield functools.partial(_ask_source, source)
    if to := destination(values):
        private = values["delivery"].get("private", True)
        place = open_place(to, private=private, environment=environment)
        yield functools.partial(_ask_place, "delivery.to", to, place.check)
    for endpoint in _endpoints(values):
        yield functools.partial(_ask_endpoint, endpoint, environment)
    wandb = values.get("tracking", {}).get("wandb", "auto")
    if wandb == "online" or (wandb == "auto" and has_login(environment)):
        yield functools.partial(_ask_wandb, environment, wandb)


def _hub_names(patient: Patient) -> Iterator[str]:
    """Models that come from the hub: the one to train, and the one that measures likeness."""
    assert patient.manifest is not None
    embedding = patient.manifest.values.get("eval", {}).get("embedding")
    for name in (model_reference(patient.manifest), embedding):
        if name and "/" in name and not name.startswith((".", "/", "~")):
            yield name


def _sources(data: Mapping[str, Any]) -> Iterator[str]:
    for part in ("train", "dev", "test", "mix"):
        entries = data.get(part) or []
        for entry in entries if isinstance(entries, list) else [entries]:
            yield entry if isinstance(entry, str) else entry["source"]


def _endpoints(values: Any) -> Iterator[Mapping[str, Any]]:
    """Every endpoint, wherever the manifest names it."""
    if isinstance(values, Mapping) and "base_url" in values:
        yield values
    for value in values.values() if isinstance(values, Mapping) else values if isinstance(values, list) else ():
        yield from _endpoints(value)


def _ask_hub(name: str, environment: Mapping[str, str], kind: str) -> Found:
    """The hub's word on a model or data set, unless it is in the cache already or the hub is not to be asked."""
    repository, _, revision = name.partition("@")
    label = f"hub {repository}"
    if _is_cached(repository, revision, environment, kind):
        return ok(label, "in the hub's cache"), None
    if environment.get("HF_HUB_OFFLINE", "").upper() in YES:
        fix = "Unset HF_HUB_OFFLINE, or fetch it first (`runner prepare` fetches models)."
        return fail(label, "HF_HUB_OFFLINE is set, and it is not in the cache", fix, Exit.INPUT_MISSING), None
    server = environment.get("HF_ENDPOINT", HUB).rstrip("/")
    url = f"{server}/api/{kind}/{repository}/revision/{quote(revision or 'main', safe='')}"
    token = environment.get("HF_TOKEN")
    answer = _get(url, {"Authorization": f"Bearer {token}"} if token else {})
    return _judge(label, server, answer, "Correct the name and revision, or set HF_TOKEN.", "HF_TOKEN"), answer.date


def _is_cached(repository: str, revision: str, environment: Mapping[str, str], kind: str) -> bool:
    """Whether a snapshot of the revision lies where the hub's client keeps it."""
    home = environment.get("HF_HOME") or str(Path(environment.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    cache = Path(environment.get("HF_HUB_CACHE") or Path(home) / "hub").expanduser()
    folder = cache / f"{kind}--{repository.replace('/', '--')}"
    try:
        commit = (folder / "refs" / (revision or "main")).read_text().strip()
    except OSError:
        commit = revision
    return bool(commit) and any((folder / "snapshots" / commit).glob("*"))


def _ask_source(source: str) -> Found:
    """A data file: by HTTP its head alone, from a bucket what its store says of it."""
    label, shown = "data", str(without_secrets(source))
    if is_http(source):
        answer = _get(source, {}, method="HEAD")
        if answer.status in (403, 405, 501):  # signed links are for GET alone
            answer = _get(source, {"Range": "bytes=0-0"})
        return _judge(label, shown, answer, "Correct data, or renew the link.", "the link's"), answer.date
    try:
        import fsspec.core

        system, path = fsspec.core.url_to_fs(source)
        size = system.info(path).get("size")
    except FileNotFoundError:
        return fail(label, f"{shown}: there is no such file", "Correct data.", Exit.INPUT_MISSING), None
    except PermissionError:
        fix = "Check that the credentials in the environment may read it."
        return fail(label, f"{shown}: access was refused", fix, Exit.CREDENTIALS), None
    except Exception as error:  # whatever a store's client raises
        return unknown(label, f"{shown}: {type(error).__name__}", "Ask from where its package is installed."), None
    return ok(label, f"{shown}: {size or 0:,} bytes"), None


def _ask_place(label: str, url: str, check: Callable[[], None]) -> Found:
    """Whether files can be put into a bucket or a repository, with these credentials."""
    try:
        check()
    except RunnerError as error:
        return failed(label, error.problems[0], error.exit_code), None
    return ok(label, f"{masked(url)} takes what is written there"), None


def _ask_endpoint(endpoint: Mapping[str, Any], environment: Mapping[str, str]) -> Found:
    """Whether the server answers and takes the key; which models it has, not every server lists."""
    url = str(endpoint["base_url"]).rstrip("/")
    key = environment.get(endpoint.get("api_key_env") or "")
    answer = _get(f"{url}/models", {"Authorization": f"Bearer {key}"} if key else {})
    shown, label = str(without_secrets(url)), f"endpoint {endpoint['model']}"
    if answer.status in (404, 405):
        return ok(label, f"{shown} answers"), answer.date
    return _judge(label, shown, answer, "Correct base_url.", endpoint.get("api_key_env") or "a key"), answer.date


def _ask_wandb(environment: Mapping[str, str], wanted: str) -> Found:
    say = (
        fail
        if wanted == "online"
        else (lambda name, what, fix, code: warning(name, f"{what}; the run goes on offline", fix))
    )
    if not has_login(environment):
        return fail("wandb", "there is no key", "Set WANDB_API_KEY.", Exit.CREDENTIALS), None
    try:
        check_login(environment)
    except Refused as refused:
        return fail("wandb", f"the server refuses the key: {refused}", "Renew WANDB_API_KEY.", Exit.CREDENTIALS), None
    except Unreachable as error:
        return say("wandb", f"not reachable: {error}", "See whether the network is up.", Exit.UNAVAILABLE), None
    return ok("wandb", "the server knows the key"), None


def _judge(name: str, shown: str, answer: Answer, fix: str, key: str) -> Check:
    """What a status means for a run."""
    if answer.status is None:
        return fail(
            name, f"{shown} is not reachable: {answer.reason}", "See whether the network is up.", Exit.UNAVAILABLE
        )
    if answer.status in (401, 403):
        return fail(name, f"{shown} refuses access ({answer.status})", f"Check {key}.", Exit.CREDENTIALS)
    if answer.status < 400:
        return ok(name, f"{shown} answers")
    if answer.status < 500 and answer.status != 429:
        return fail(name, f"{shown} has no such thing ({answer.status})", fix, Exit.INPUT_MISSING)
    return fail(name, f"{shown} answers {answer.status}", "Try again later.", Exit.UNAVAILABLE)


def _get(url: str, headers: Mapping[str, str], method: str = "GET") -> Answer:
    """One question, without a second try."""
    try:
        request = make_request(url, {})
        request.method = method
        for name, value in headers.items():
            request.add_unredirected_header(name, value)
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            return Answer(status=response.status, date=_date(response.headers))
    except urllib.error.HTTPError as error:
        return Answer(status=error.code, date=_date(error.headers))
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        return Answer(status=None, reason=str(getattr(reason, "strerror", None) or reason or type(error).__name__))


def _date(headers: Any) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(headers["Date"]).timestamp()
    except (TypeError, ValueError):
        return None


def _clock(dates: list[float], asked: bool) -> Check:
    """Against the servers' clocks, and at least not before this program was written to the disk."""
    now = time.time()
    fix = "Set the clock, for example with chrony: TLS refuses certificates that are not valid yet, or no more."
    written = Path(runner.__file__).stat().st_mtime
    if now < written - BAD_CLOCK_SECONDS:
        return fail("clock", "it shows a time before this program was installed", fix, Exit.UNAVAILABLE)
    if not dates:
        if asked:
            return unknown("clock", "no server told the time")
        return ok("clock", "not before this program was installed; there is no server to compare it with")
    off = min((now - date for date in dates), key=abs)
    about = f"{abs(off):,.0f} s {'ahead of' if off > 0 else 'behind'} a server's"
    if abs(off) > BAD_CLOCK_SECONDS:
        return fail("clock", about, fix, Exit.UNAVAILABLE)
    return warning("clock", about, fix) if abs(off) > ODD_CLOCK_SECONDS else ok("clock", about)
