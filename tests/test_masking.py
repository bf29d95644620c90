"""Secrets are masked by value and by shape, and nothing else is."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner import masking
from runner.masking import (
    MASK,
    MaskedStream,
    is_environment_name,
    is_secret_name,
    masked,
    masked_source,
    masked_value,
    print_exception,
    printable,
    remember,
)


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masking, "_known", set())


SECRETS = [  # as their makers document them; put together here, so that no scanner takes them for real
    "hf_" + "aBcDeFgHiJ" * 3 + "kLmN",
    "sk-" + "proj-Zt4nQ8vLw2XyB6cMd0RfHk3J",
    "sk-" + "ant-api03-Zt4nQ8vLw2XyB6cMd0RfHk3J-_AA",
    "sk-" + "0123456789abcdef" * 2,
    "AKIA" + "Q7ZP4M2XW9LR5TVB",
    "ASIA" + "Q7ZP4M2XW9LR5TVB",
    "ghp_" + "a1B2" * 9,
    "github_pat_" + "a1" * 30,
    "glpat-" + "a1B2" * 5,
    "xoxb-" + "123456789012-abcDEFghiJKL",
    "AIza" + "Ab1-" * 8 + "xyz",
    "ya29." + "a1B2-_" * 6,
    "wandb_v1_" + "a1B2" * 10,
    "gsk_" + "a1B2" * 13,
    "nvapi-" + "a1B2" * 16,
    "eyJhbGciOiJIUzI1NiJ9." + "eyJzdWIiOiIxMjM0NTY3ODkwIn0." + "dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEpAIBAAKCAQEA0123" * 4 + "\n",
]


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("around", ["{}", 'key="{}",', "({})", "a {} b", "https://a.test/?q={}"])
def test_a_key_is_masked_by_its_shape(secret: str, around: str) -> None:
    shown = masked(around.format(secret))
    assert MASK in shown and secret.strip()[-12:] not in shown
    assert json.loads(masked(json.dumps({"a": secret}))).keys() == {"a"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("see https://user:pw@host.test/a?b=c", "see https://***@host.test/a?b=c"),
        ("https://token@host.test/a", "https://***@host.test/a"),
        ("s3://bucket/a?X-Amz-Signature=abc&v=1", "s3://bucket/a?X-Amz-Signature=***&v=1"),
        ("https://b.test/x?sv=1&amp;sig=a%2Fb", "https://b.test/x?sv=1&amp;sig=***"),
        ("Authorization: Bearer k3jd93jdk39fj3kd93kf03", "Authorization: ***"),
        ("authorization: basic YXBpOmNhbmFyeTE=", "authorization: ***"),
    ],
)
def test_what_is_secret_in_an_address_or_a_header_is_masked(text: str, shown: str) -> None:
    assert masked(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "org/name@main",
        "hf://datasets/org/name@0123abc/rows.jsonl",
        "https://wandb.ai/acme/runner/runs/abc?nw=1",
        "revision 8f59a3f0c1d2e3b4a5968778695a4b3c2d1e0f90",
        "max_new_tokens: 24, batch_tokens: 32768",
        "a risk-averse-and-desk-bound-person-of-1920",
        "AKIAIOSFODNN7EXAMPLE",
        "info@example.com and git@github.com:org/name.git",
        "a basic introduction, the bearer of this letter",
        "eyJ",
    ],
)
def test_what_only_looks_alike_is_left(text: str) -> None:
    assert masked(text) == text


def test_what_the_environment_holds_is_masked_by_value_however_it_is_written() -> None:
    remember(
        {
            "JUDGE_API_KEY": "correct horse/battery",
            "HTTPS_PROXY": "http://user:pa%24%24word@proxy.test:8080",
            "HF_TOKEN": "short",
            "TOKENIZERS_PARALLELISM": "false-and-long",
            "SSL_KEY_FILE": "some/where/else",
            "GOOGLE_APPLICATION_CREDENTIALS": "/run/secrets/google",
            "PATH": "/usr/bin:/bin",
        }
    )
    assert masked("a correct horse/battery b") == "a *** b"
    assert masked("?q=correct%20horse%2Fbattery") == "?q=***"
    remember({"DB_PASSWORD": 'a "quoted" <b>'})
    assert masked(json.dumps({"a": 'a "quoted" <b>'})) == '{"a": "***"}'
    assert masked("a &quot;quoted&quot; &lt;b&gt;") == "***"
    assert masked("pa%24%24word pa$$word") == "*** ***"
    for open_text in ("short", "false-and-long", "some/where/else", "/run/secrets/google", "/usr/bin:/bin"):
        assert masked(open_text) == open_text


def test_plain_data_is_masked_throughout() -> None:
    key = SECRETS[0]
    assert masked_value({"a": [key, {"b": (key, 1, None)}], key: True}) == {
        "a": [MASK, {"b": [MASK, 1, None]}],
        MASK: True,
    }


@pytest.mark.parametrize(
    ("source", "shown"),
    [
        ("password: correct horse", "password: ***"),
        ("  judge_api_key:   'a b'  # mine", "  judge_api_key:   ***"),
        ('{"HF_TOKEN": "a b", "x": 1}', '{"HF_TOKEN": ***'),
        ("eval.api_key=hunter2", "eval.api_key=***"),
        ("api_key_env: OPENAI_API_KEY", "api_key_env: OPENAI_API_KEY"),
        ("api_key_env: openai_key # mine", "api_key_env: openai_key # mine"),
        ("{api_key_env: A1B2C3D4E5F6A7B8C9D0E1, model: m}", "{api_key_env: ***, model: m}"),
        ("api_key_env: a b c", "api_key_env: ***"),
        ("unrecognized arguments: --api-key a/b x", "unrecognized arguments: --api-key *** x"),
        ("password:", "password:"),
        ("password: null", "password: null"),
        ("max_new_tokens: 24", "max_new_tokens: 24"),
        ("api_key: |\n  a\n\n   b\nnext: c", "api_key: ***\n  ***\n\n   ***\nnext: c"),
        ("- token:\n    a\n- x: b", "- token:\n    ***\n- x: b"),
    ],
)
def test_lines_of_a_manifest_are_masked_by_the_names_of_keys(source: str, shown: str) -> None:
    assert masked_source(source) == shown


@given(st.text(alphabet="api_key: \n|>-'\"{}#tokenx=", max_size=80))
def test_masking_a_source_keeps_its_lines(text: str) -> None:
    assert masked_source(text).count("\n") == text.count("\n")


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        *((name, True) for name in ("api_key", "apiKey", "HF_TOKEN", "wandb-api-key", "password", "secret", "db.pwd")),
        *((name, False) for name in ("api_key_env", "tokens", "max_new_tokens", "keys", "secretary", "name")),
    ],
)
def test_some_names_are_those_of_secrets(name: str, secret: bool) -> None:
    assert is_secret_name(name) is secret


@pytest.mark.parametrize(
    ("text", "is_name"),
    [
        *((name, True) for name in ("OPENAI_API_KEY", "key2", "abcdefghijklmnopqrstuvwxyz")),
        *((key, False) for key in ("a b", "2b", "", SECRETS[0], "abcdef0123456789abcdef0123456789abcdef01")),
    ],
)
def test_a_key_in_place_of_its_variable_s_name_is_seen(text: str, is_name: bool) -> None:
    assert is_environment_name(text) is is_name


def test_text_cannot_steer_the_terminal() -> None:
    assert printable("a\x1b[2Jb\rc\x9bd\u202ee\u2066f") == "a\ufffd[2Jb\ufffdc\ufffdd\ufffde\ufffdf"
    assert printable("tab\t, line\n, é, 学, 👩\u200d🔬, nb\u00a0sp") == "tab\t, line\n, é, 学, 👩\u200d🔬, nb\u00a0sp"


def test_a_traceback_is_masked() -> None:
    out = io.StringIO()
    try:
        raise ValueError(f"cannot open https://user:canary@host.test with {SECRETS[0]}")
    except ValueError as error:
        print_exception(error, out)
    assert out.getvalue().startswith("Traceback")
    assert out.getvalue().splitlines()[-1] == "ValueError: cannot open https://***@host.test with ***"
    assert "canary" not in out.getvalue()


def test_a_masked_stream_is_still_a_stream() -> None:
    inner = io.StringIO()
    stream = MaskedStream(inner)
    assert stream.write(f"x {SECRETS[0]}\n") == len(SECRETS[0]) + 3
    stream.writelines(["a\n", f"{SECRETS[1]}\n"])
    stream.flush()
    assert (inner.getvalue(), stream.isatty()) == ("x ***\na\n***\n", False)
