"""A model's repository on the Hugging Face hub as the place where weights go."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from runner.errors import Exit, Problem, RunnerError, Where
from runner.masking import remember_values
from runner.pushing.place import CARD, KEY, RECORD, Outgoing, Record, Sent, foreign
from runner.pushing.target import HUB
from runner.stores import in_short, status_of

Done = TypeVar("Done")
WRITERS = ("admin", "write", "contributor")  # roles in an organisation
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5", ".msgpack")
YES = ("1", "ON", "YES", "TRUE")
TOKENS = "a token with the right to write, from the hub's settings"


class HubPlace:
    """A repository, made when it is first pushed to. Every push is one commit: nobody sees a part of it."""

    def __init__(self, to: str, *, private: bool, environment: Mapping[str, str]):
        self.url, self._private, self._environment = to, private, environment
        self._name = to.removeprefix(HUB)

    def check(self) -> None:
        """Asks the hub who we are, and whether we may write; raises RunnerError."""
        self._ask(self._check)

    def push(self, files: Sequence[Outgoing], run_id: str, moved: Callable[[Outgoing, bool], None]) -> Sent:
        """Sends the files one by one, which the hub keeps aside, then makes the commit. What the hub has already is not
        sent again, whichever run it came from."""
        return self._ask(lambda api: self._push(api, files, run_id, moved))

    def _ask(self, do: Callable[[Any], Done]) -> Done:
        api = self._open()
        try:
            return do(api)
        except RunnerError:
            raise
        except ValueError as error:
            if "README.md" not in str(error):
                raise self._problem(error) from error
            what = f"The hub does not take the model card: {str(error).splitlines()[-1]}"
            raise self._fault("card", what, "Please report this, with the report.json.", Exit.BUG) from error
        except Exception as error:  # of the hub's client, and of the HTTP client below it
            raise self._problem(error) from error

    def _open(self) -> Any:
        if self._environment.get("HF_HUB_OFFLINE", "").upper() in YES:
            what = "HF_HUB_OFFLINE is set, and delivered weights are to go to the hub."
            raise self._fault("offline", what, "Unset HF_HUB_OFFLINE, or leave delivery.to out.", Exit.USAGE)
        try:
            import huggingface_hub
            from huggingface_hub.utils.tqdm import disable_progress_bars
        except ImportError as error:
            fix = "pip install huggingface_hub"
            what = "'hf://' needs the package 'huggingface_hub', which is not installed."
            raise self._fault("package-missing", what, fix, Exit.USAGE) from error
        token = self._environment.get("HF_TOKEN") or huggingface_hub.get_token()
        if not token:
            what, fix = "There is no token for the hub.", f"Set HF_TOKEN, or HF_TOKEN_FILE, to {TOKENS}."
            raise self._fault("no-token", what, fix, Exit.CREDENTIALS)
        remember_values(token)
        disable_progress_bars()  # ours are shown
        return huggingface_hub.HfApi(token=token, endpoint=self._environment.get("HF_ENDPOINT"))

    def _check(self, api: Any) -> None:
        who = api.whoami()
        names = self._names(api)
        if names is None:
            self._check_owner(who)
        else:
            api.auth_check(self._name, write=True)
        if not _may_write(who, self._name):
            raise self._refused("The token may not write there.")

    def _names(self, api: Any) -> list[str] | None:
        """The files of the repository; None where there is none yet. Raises RunnerError (73) where its state is not
        what was asked for."""
        from huggingface_hub.errors import RepositoryNotFoundError

        try:
            info = api.model_info(self._name)
        except RepositoryNotFoundError:
            return None
        if self._private and not info.private:
            what = "The repository is public, and delivery.private is true."
            fix = "Set delivery.private: false if everybody may have the weights, or make the repository private."
            raise self._fault("public", what, fix, Exit.RUN_DIRECTORY)
        names = [file.rfilename for file in info.siblings or ()]
        if RECORD not in names and (strangers := [name for name in names if name.endswith(WEIGHTS)]):
            raise foreign(self.url, strangers)
        return names

    def _check_owner(self, who: Mapping[str, Any]) -> None:
        """Whether we could make the repository, as far as the hub tells."""
        owner = self._name.partition("/")[0]
        roles = {org.get("name"): org.get("roleInOrg") for org in who.get("orgs") or ()}
        if who.get("name") != owner and owner not in roles:
            raise self._refused(f"The token is {who.get('name')}'s, who is not in an organisation '{owner}'.")
        if who.get("name") != owner and roles[owner] not in (*WRITERS, None):
            raise self._refused(f"The token's owner may not write in '{owner}' (role: {roles[owner]}).")

    def _push(self, api: Any, files: Sequence[Outgoing], run_id: str, moved: Callable[[Outgoing, bool], None]) -> Sent:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        api.create_repo(self._name, private=self._private, exist_ok=True)
        names = self._names(api) or []
        before = self._record(api) if RECORD in names else None
        known = before.files if before else {}
        record = Record(run_id=run_id, files={file.name: file.sha256 for file in files})
        operations: list[Any] = []
        for file in sorted(files, key=lambda file: file.name == CARD):
            addition = CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=str(file.path))
            api.preupload_lfs_files(self._name, [addition], free_memory=False)
            operations.append(addition)
            moved(file, known.get(file.name) != file.sha256)
        operations.append(CommitOperationAdd(path_in_repo=RECORD, path_or_fileobj=record.text()))
        operations += [CommitOperationDelete(name) for name in known if name in names and name not in record.files]
        commit = api.create_commit(self._name, operations, commit_message=f"runner: run {run_id}")
        num_sent = sum(known.get(file.name) != file.sha256 for file in files)
        return Sent(commit=str(commit.oid), num_sent=num_sent)

    def _record(self, api: Any) -> Record | None:
        with tempfile.TemporaryDirectory(prefix="runner-") as folder:
            return Record.read(Path(api.hf_hub_download(self._name, RECORD, local_dir=folder)).read_bytes())

    def _problem(self, error: Exception) -> RunnerError:
        """What the hub's client meant: refused (77), or not there now (69). Its own words may hold a URL."""
        status = status_of(error)
        if status in (401, 403):
            return self._refused(f"The hub refuses access for delivery.to (status {status}).")
        what = f"The hub cannot be reached, or does not do what it is asked: {in_short(error)}."
        fix = "Check the network (and HF_ENDPOINT), then run the same command."
        return self._fault("hub-unavailable", what, fix, Exit.UNAVAILABLE)

    def _refused(self, what: str) -> RunnerError:
        fix = f"Set HF_TOKEN to {TOKENS}, or name a repository of your own in delivery.to."
        return self._fault("hub-refused", what, fix, Exit.CREDENTIALS)

    def _fault(self, slug: str, what: str, fix: str, exit_code: Exit) -> RunnerError:
        problem = Problem(code=f"delivery/{slug}", what=what, where=Where(path=self.url, key=KEY), fix=fix)
        return RunnerError(problem, exit_code)


def _may_write(who: Mapping[str, Any], repository: str) -> bool:
    """Whether the token may write, as far as the hub says what it is for."""
    token = ((who.get("auth") or {}).get("accessToken")) or {}
    if token.get("role") != "fineGrained":
        return bool(token.get("role") != "read")
    scopes = (token.get("fineGrained") or {}).get("scoped") or ()
    ours = (repository, repository.partition("/")[0])
    return any(scope["entity"].get("name") in ours and "repo.write" in scope["permissions"] for scope in scopes)
