"""Weights & Biases, the real library. A refusal is told before anything is spent; whatever goes wrong later ends as a
note and changes nothing of the result."""

from __future__ import annotations

import base64
import http.client
import json
import netrc
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from runner.backends.base import Watch
from runner.errors import Interrupted
from runner.machine.telemetry import silence
from runner.masking import masked

Mode = Literal["online", "offline"]
SERVER = "https://api.wandb.ai"
LOGIN_TIMEOUT_SECONDS = 8
INIT_TIMEOUT_SECONDS = 18  # with the login and the end of the run at most 30 s more than without W&B, if it is down
FINISH_TIMEOUT_SECONDS = 25
FINISH_GRACE_SECONDS = 2.0  # once we were asked to stop
REFUSALS = (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN)


class Refused(Exception):
    """W&B answers, and says no; the text is what it says."""


class Unreachable(Exception):
    """W&B does not answer, or not as W&B would; the text says how."""


def server_of(environment: Mapping[str, str]) -> str:
    """The address of W&B's server: their own, unless WANDB_BASE_URL names another."""
    return (environment.get("WANDB_BASE_URL") or SERVER).rstrip("/")


def find_key(environment: Mapping[str, str]) -> str | None:
    """The API key: WANDB_API_KEY, or what `wandb login` left in ~/.netrc; None where there is neither."""
    if key := environment.get("WANDB_API_KEY", "").strip():
        return key
    home = environment.get("HOME") or str(Path.home())
    for path in [environment["NETRC"]] if environment.get("NETRC") else [f"{home}/.netrc", f"{home}/_netrc"]:
        try:
            login = netrc.netrc(path).authenticators(urlsplit(server_of(environment)).netloc)
        except (OSError, netrc.NetrcParseError):
            continue
        if login and login[2]:
            return login[2]
    return None


def has_login(environment: Mapping[str, str]) -> bool:
    """Whether there is something to log in with: a key, or the token of an identity provider."""
    return bool(environment.get("WANDB_IDENTITY_TOKEN_FILE")) or find_key(environment) is not None


def check_login(environment: Mapping[str, str]) -> None:
    """Asks the server who we are, which costs nothing and leaves nothing there; raises Refused or Unreachable.

    The token of an identity provider is for the library to exchange, and is not looked at here.
    """
    key = find_key(environment)
    if key is None:
        return
    login = base64.b64encode(f"api:{key}".encode()).decode()
    request = urllib.request.Request(
        f"{server_of(environment)}/graphql",
        data=json.dumps({"query": "query Viewer { viewer { id } }"}).encode(),
        headers={"Authorization": f"Basic {login}", "Content-Type": "application/json", "User-Agent": "runner"},
    )
    try:
        with urllib.request.urlopen(request, timeout=LOGIN_TIMEOUT_SECONDS) as response:
            viewer = json.load(response)["data"]["viewer"]
    except urllib.error.HTTPError as error:
        kind = Refused if error.code in REFUSALS else Unreachable
        raise kind(f"it answers {error.code}") from None
    except OSError as error:
        reason = getattr(error, "reason", error)
        raise Unreachable(str(getattr(reason, "strerror", None) or reason or type(error).__name__)) from None
    except (ValueError, LookupError, TypeError, http.client.HTTPException):
        raise Unreachable("what answers there is not W&B") from None
    if viewer is None:
        raise Refused("it does not know the key")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What a W&B run is opened with; `config` holds only what the manifest and the plan say. A run id that the server
    knows goes on where it was."""

    mode: Mode
    project: str
    entity: str | None
    name: str
    run_id: str
    tags: Sequence[str]
    config: Mapping[str, Any]
    folder: Path


class WandbRun:
    """An open W&B run. `note` tells what went wrong with it, if anything did; the calls never raise.

    Opening it online raises Refused when the server says no.
    """

    def __init__(self, settings: RunSettings):
        self.mode: str = settings.mode
        self.url: str | None = None
        self.note: str | None = None
        self._run: Any = None
        started = time.monotonic()
        try:
            self._run = _open(settings)
            self.url = self._run.url
        except Exception as error:  # whatever W&B does, the experiment goes on
            said = masked(" ".join(str(error).split()))[:200]
            self.note = f"{settings.mode}: {type(error).__name__}: {said}"
            self.mode = "failed"
            if settings.mode == "online":
                if _is_refusal(error, time.monotonic() - started):
                    raise Refused(said) from None
                self._fall_back(replace(settings, mode="offline"))

    def _fall_back(self, settings: RunSettings) -> None:
        """Keeps the run offline when the server cannot be reached, to be synced later."""
        try:
            close_service()
            self._run = _open(settings)
            self.mode = "offline"
        except Exception as error:  # see above
            self.note = f"{self.note}; offline: {type(error).__name__}"

    def log(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Adds points to the curves."""
        self._try(lambda run: run.log(dict(values), step=step))

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Sets the run's summary, which W&B's tables compare runs by."""
        self._try(lambda run: run.summary.update(dict(values)))

    def finish(self, exit_code: int, watch: Watch) -> None:
        """Closes the run; after a request to stop it is not waited for long. The service of W&B, a process of its own,
        ends with ours."""
        try:
            with watch.interruptible(FINISH_GRACE_SECONDS):
                self._try(lambda run: run.finish(exit_code=exit_code))
        except Interrupted:
            self.note = self.note or "it was not waited for, since the run was asked to stop"
        self._run = None

    def _try(self, call: Any) -> None:
        if self._run is None:
            return
        try:
            call(self._run)
        except Exception as error:  # see above
            self.note = self.note or f"{type(error).__name__}: {error}"


def _is_refusal(error: Exception, seconds: float) -> bool:
    """Whether the server said no. The library gives its words without the status, and tries again what may pass for as
    long as it may: what comes sooner is the server's last word."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    return bool(kinds & {"AuthenticationError", "CommError"}) and seconds < INIT_TIMEOUT_SECONDS - 1


def close_service() -> None:
    """Ends the library's service process, which else takes the id of a run that it failed to open for used."""
    import wandb

    wandb.teardown()


def _open(settings: RunSettings) -> Any:
    settings.folder.mkdir(parents=True, exist_ok=True)
    for name in ("WANDB_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
        os.environ[name] = str(settings.folder)  # else it falls back to a temporary folder, lost with the machine
    os.environ["WANDB_SILENT"] = "true"
    silence(os.environ)
    import wandb

    return wandb.init(
        mode=settings.mode,
        project=settings.project,
        entity=settings.entity,
        name=settings.name,
        id=settings.run_id,
        resume="allow",
        tags=list(settings.tags),
        config=dict(settings.config),
        dir=str(settings.folder),
        settings=wandb.Settings(
            console="off",
            silent=True,
            disable_git=True,
            save_code=False,
            x_disable_stats=True,
            x_disable_machine_info=True,  # which holds the command line, and with it whatever --set was given
            init_timeout=INIT_TIMEOUT_SECONDS,
            finish_timeout=FINISH_TIMEOUT_SECONDS,
            finish_timeout_raises=True,
            login_timeout=INIT_TIMEOUT_SECONDS,
        ),
    )
