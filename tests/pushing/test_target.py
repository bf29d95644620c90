"""What `delivery.to` may say is known without a network, as the hub's own client has it."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from hypothesis import example, given
from hypothesis import strategies as st

from runner.errors import Exit, RunnerError
from runner.pushing import check_apart, is_owed, of_point, target_fault


@pytest.mark.parametrize(
    "to", ["s3://bucket/models/tickets", "gs://b/f/", "az://b/f", "hf://owner/name", "hf://o/a.b-c"]
)
def test_a_folder_of_a_bucket_and_a_repository_of_the_hub_are_places(to: str) -> None:
    assert target_fault(to) is None


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("s3://key:secret@bucket/folder", "user or key"),
        ("s3://bucket", "no folder"),
        ("ftp://host/folder", "cannot be sent"),
        ("./folder", "cannot be sent"),
        ("https://huggingface.co/owner/name", "cannot be sent"),
        ("hf://name", "an owner and a name"),
        ("hf://models/owner/name", "an owner and a name"),
        ("hf://token@owner/name", "user or key"),
        ("hf://owner/name@v1", "revision"),
        ("hf://owner/-name", "no such name"),
        ("hf://owner/na--me", "no such name"),
        ("hf://owner/name.git", "no such name"),
        ("hf://owner/" + 97 * "a", "that long"),
    ],
)
def test_what_is_none_is_said_with_a_cure(to: str, said: str) -> None:
    what, cure = target_fault(to) or ("", "")
    assert said in what and cure and "secret" not in what + cure


@given(st.from_regex(r"[\w.\-é ]{1,12}", fullmatch=True))
@example("a\n")
def test_the_hub_takes_every_name_that_we_take(name: str) -> None:
    with nullcontext() if target_fault(f"hf://owner/{name}") is None else pytest.raises(HFValidationError):
        validate_repo_id(f"owner/{name}")


def test_each_point_of_a_sweep_has_a_place_of_its_own() -> None:
    assert of_point("s3://b/f", "learning_rate=0.1 a", "r1") == "s3://b/f/learning_rate=0.1-a-r1"
    assert of_point("hf://o/n", "anything", "r1") == "hf://o/n-r1"
    assert target_fault("hf://owner/" + 90 * "a", longer_by=11) is not None


@pytest.mark.parametrize(
    ("to", "mirror"), [("s3://b/f/w", "s3://b/f"), ("s3://b/f", "s3://b/f"), ("s3://b/f", "s3://b/f/r")]
)
def test_weights_never_go_into_a_mirror_nor_a_mirror_among_weights(to: str, mirror: str) -> None:
    with pytest.raises(RunnerError) as caught:
        check_apart(to, mirror)
    assert (caught.value.exit_code, caught.value.problems[0].code) == (Exit.RUN_DIRECTORY, "delivery/in-mirror")
    check_apart("s3://b/f2", "s3://b/f")
    check_apart("hf://o/n", "s3://b/f")


def test_what_is_not_there_yet_is_owed() -> None:
    to = {"delivery": {"to": "s3://b/f"}}
    done = {"status": "done", "delivery": {"card": "README.md", "to": None}}
    sent = {"url": "s3://b/f", "pushed_at": "now"}
    assert is_owed(done, to) and not is_owed(done, {})
    assert not is_owed({**done, "status": "failed"}, to) and not is_owed({**done, "delivery": None}, to)
    assert not is_owed({**done, "delivery": {"card": None, "to": None}}, to), "its check did not agree"
    assert not is_owed({**done, "delivery": {"card": "c", "to": sent}}, to)
    assert is_owed({**done, "delivery": {"card": "c", "to": {**sent, "pushed_at": None}}}, to)
    assert is_owed({**done, "delivery": {"card": "c", "to": {**sent, "url": "hf://o/n"}}}, to)
