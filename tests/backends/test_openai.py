"""Chats with a scripted server, over real HTTP and through the real SDK."""

from __future__ import annotations

import builtins
import json
import logging
import sys
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.backends import open_chat
from runner.backends.base import Endpoint, Reply, Sampling
from runner.backends.openai import ChatClient, shown_url
from runner.conversation import Completion, Message
from runner.errors import Exit, Interrupted, RunnerError
from tests.chat_server import FakeServer
from tests.fakes import FakeProgress, FakeWatch

SAMPLING = Sampling(max_new_tokens=20, batch_size=1)
SCHEMA = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"]}
KEY = "sk-very-secret-1234"


def turn(text: str) -> list[Message]:
    return [Message(role="system", content="Be short."), Message(role="user", content=text)]


def turns(num: int) -> list[list[Message]]:
    return [turn(f"question {i}") for i in range(num)]


def client(
    server: FakeServer, folder: Path, *, max_retries: int = 2, key: str | None = None, **changes: Any
) -> ChatClient:
    named = {"api_key_env": "SOME_KEY"} if key is not None else {}
    environment = {"SOME_KEY": key} if key is not None else {}
    return ChatClient(server.endpoint(**named, **changes), folder, environment, max_retries=max_retries)


def ask(chat: ChatClient, prompts: list[list[Message]], **options: Any) -> list[Reply]:
    return chat.complete(prompts, SAMPLING, options.pop("watch", None) or FakeWatch(), label="asking", **options)


def texts(replies: list[Reply]) -> list[str | None]:
    return [reply.completion.text if reply.completion else None for reply in replies]


def fault(chat: ChatClient, num: int = 1) -> RunnerError:
    with pytest.raises(RunnerError) as caught:
        ask(chat, turns(num))
    assert caught.value.problems[0].fix
    return caught.value


def last(body: dict[str, Any]) -> str:
    return str(body["messages"][-1]["content"])


def test_replies_come_in_the_order_of_the_prompts_with_tokens_seconds_and_model(tmp_path: Path) -> None:
    def slow_first(body: dict[str, Any]) -> str:
        time.sleep(0.1 if last(body).endswith("0") else 0)
        return f"to {last(body)}"

    with FakeServer(slow_first) as server:
        replies = ask(client(server, tmp_path), turns(6))
    assert texts(replies) == [f"to question {i}" for i in range(6)]
    first = replies[0]
    assert first.completion == Completion(
        text="to question 0", prompt_tokens=4, output_tokens=4, seconds=first.completion.seconds, finish="stop"
    )
    assert first.completion and 0.1 <= first.completion.seconds < 2
    assert (first.model, first.cached, first.reason) == ("fake-2026-01-01", False, None)


def test_a_request_is_greedy_bounded_and_in_openais_shape(tmp_path: Path) -> None:
    calls = json.dumps([{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}])
    prompt = [
        *turn("look it up"),
        Message(role="assistant", content="", tool_calls=calls),
        Message(role="tool", content="found", tool_call_id="c1"),
    ]
    with FakeServer() as server:
        ask(client(server, tmp_path), [prompt], schema=SCHEMA)
        (asked,) = server.chats
    assert asked.body == {
        "model": "fake",
        "temperature": 0,
        "max_tokens": 20,
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "look it up"},
            {"role": "assistant", "content": None, "tool_calls": json.loads(calls)},
            {"role": "tool", "content": "found", "tool_call_id": "c1"},
        ],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA},
        },
    }
    assert "authorization" not in asked.headers


def test_an_answer_cut_by_the_limit_says_so(tmp_path: Path) -> None:
    with FakeServer("word " * 30) as server:
        (reply,) = ask(client(server, tmp_path), turns(1))
    assert reply.completion and (reply.completion.finish, reply.completion.output_tokens) == ("length", 20)


def test_unknown_tokens_stay_unknown_also_when_they_are_kept(tmp_path: Path) -> None:
    with FakeServer() as server:
        server.fail_next("no-usage")
        chat = client(server, tmp_path)
        for reply in ask(chat, turns(1)) + ask(client(server, tmp_path), turns(1)):
            assert reply.completion and reply.reason is None
            assert (reply.completion.prompt_tokens, reply.completion.output_tokens) == (None, None)


def test_no_request_is_sent_twice(tmp_path: Path) -> None:
    with FakeServer(last) as server:
        once = ask(client(server, tmp_path), [*turns(3), turn("question 1")])
        again = ask(client(server, tmp_path), turns(4))
        assert sorted(server.questions) == [f"question {i}" for i in range(4)]
    assert [reply.cached for reply in once] == [False, False, False, True]
    assert [reply.cached for reply in again] == [True, True, True, False]
    assert texts(again) == [f"question {i}" for i in range(4)]
    assert again[0] == replace(once[0], cached=True)


def test_whatever_changes_the_answer_is_asked_anew(tmp_path: Path) -> None:
    with FakeServer() as server, FakeServer() as other:
        ask(client(server, tmp_path), turns(1))
        ask(client(server, tmp_path), turns(1), schema=SCHEMA)
        ask(client(server, tmp_path), [[replace(turns(1)[0][0], role="user"), turns(1)[0][1]]])
        client(server, tmp_path).complete(turns(1), replace(SAMPLING, max_new_tokens=21), FakeWatch(), label="x")
        assert len(server.chats) == 4
        server.model = "second"
        ask(client(server, tmp_path), turns(1))
        ask(client(other, tmp_path), turns(1))
        assert (len(server.chats), len(other.chats)) == (5, 1)
        client(server, tmp_path).complete(turns(1), replace(SAMPLING, batch_size=7), FakeWatch(), label="x")
        ask(client(server, tmp_path, key=KEY, timeout_seconds=9, max_parallel=1), turns(1))
        assert len(server.chats) == 5


def test_a_finished_run_needs_neither_key_nor_server(tmp_path: Path) -> None:
    with FakeServer() as server:
        ask(client(server, tmp_path, key=KEY), turns(2))
        endpoint = server.endpoint(api_key_env="SOME_KEY")
    gone = ChatClient(endpoint, tmp_path, {}, max_retries=0)
    assert texts(ask(gone, turns(2))) == ["yes", "yes"]
    assert fault(gone, 3).exit_code == Exit.CREDENTIALS


def test_at_most_max_parallel_requests_are_under_way_and_they_do_overlap(tmp_path: Path) -> None:
    def answer(_: dict[str, Any]) -> str:
        time.sleep(0.03)
        return "yes"

    with FakeServer(answer) as server:
        ask(client(server, tmp_path, max_parallel=3), turns(12))
        assert server.most_at_once == 3
    with FakeServer() as server:
        ask(client(server, tmp_path, max_parallel=1), turns(5))
        assert server.questions == [f"question {i}" for i in range(5)]


class StoppingWatch(FakeWatch):
    """Counts progress, and is asked to stop when `is_time` says so."""

    def __init__(self, is_time: Callable[[int], bool] = lambda num_done: False) -> None:
        super().__init__()
        self.bar = FakeProgress()
        self.is_time = is_time

    def progress(self, label: str, total: int) -> FakeProgress:
        self.lines.append(f"{label} {total}")
        return self.bar

    def check(self) -> None:
        if self.is_time(self.bar.amount):
            raise Interrupted("gate")


def test_progress_counts_every_prompt_once(tmp_path: Path) -> None:
    watch = StoppingWatch()
    with FakeServer() as server:
        ask(client(server, tmp_path), turns(2))
        ask(client(server, tmp_path), [*turns(4), turn("question 3")], watch=watch)
    assert (watch.lines, watch.bar.amount) == (["asking 5"], 5)


def test_a_stop_abandons_what_is_under_way_and_keeps_what_came(tmp_path: Path) -> None:
    held = threading.Event()

    def answer(body: dict[str, Any]) -> str:
        if not last(body).endswith("0"):
            held.wait(10)
        return "yes"

    with FakeServer(answer) as server:
        watch = StoppingWatch(lambda num_done: num_done == 1 and len(server.chats) == 3)
        started = time.monotonic()
        with pytest.raises(Interrupted):
            ask(client(server, tmp_path, max_parallel=2, timeout_seconds=20), turns(6), watch=watch)
        assert time.monotonic() - started < 8
        held.set()
        time.sleep(0.1)
        assert len(server.chats) == 3  # no further request, and none again
        ask(client(server, tmp_path), turns(6))
        assert server.questions.count("question 0") == 1


def test_the_servers_own_wait_is_honoured_and_then_the_answer_comes(tmp_path: Path) -> None:
    with FakeServer() as server:
        server.fail_next("rate-limited")
        server.fail_next("server-error")
        (reply,) = ask(client(server, tmp_path), turns(1))
        assert [request.headers["x-stainless-retry-count"] for request in server.chats] == ["0", "1", "2"]
    assert reply.completion and reply.completion.seconds < 0.3


PASSING = ("rate-limited", "server-error", "overloaded", "bad-json", "html", "cut", "no-choices", "error-inside")


@pytest.mark.slow
def test_with_a_fifth_of_the_requests_failing_each_answer_is_had_and_counted_once(tmp_path: Path) -> None:
    with FakeServer(last) as server:
        server.fail_some(0.2, PASSING, seed=5, num_chats=2_000)
        tries = 0
        while True:  # as a scheduler does with 69
            tries += 1
            assert tries < 20
            try:
                replies = ask(client(server, tmp_path, max_retries=4), turns(300))
            except RunnerError as error:
                if error.exit_code == Exit.UNAVAILABLE:
                    continue
                raise
            if all(reply.completion for reply in replies):
                break
        assert texts(replies) == [f"question {i}" for i in range(300)]
        num_failed = len(server.chats) - 300
        assert num_failed > 40, "the server did fail"
        kept = [reply.completion for reply in replies if reply.completion]
        assert sum(one.prompt_tokens or 0 for one in kept) == 300 * len(["Be", "short.", "question", "1"])
        assert sum(one.output_tokens or 0 for one in kept) == 300 * (len(["question", "1"]) + 1)
        again = ask(client(server, tmp_path), turns(300))
        assert len(server.chats) == 300 + num_failed, "what was answered is not asked for again"
    assert all(reply.cached for reply in again)
    lines = [line for path in tmp_path.rglob("*") if path.is_file() for line in path.read_text().splitlines()]
    assert len([line for line in lines if '"question ' in line or "question " in line]) == 300


@pytest.mark.parametrize(
    ("kind", "code", "exit_code", "num_requests"),
    [
        ("rate-limited", "endpoint/rate-limited", Exit.UNAVAILABLE, 3),
        ("rate-limited-long", "endpoint/rate-limited", Exit.UNAVAILABLE, 1),
        ("no-credit", "endpoint/no-credit", Exit.UNAVAILABLE, 3),
        ("server-error", "endpoint/failing", Exit.UNAVAILABLE, 3),
        ("overloaded", "endpoint/failing", Exit.UNAVAILABLE, 3),
        ("unauthorized", "endpoint/key-refused", Exit.CREDENTIALS, 1),
        ("forbidden", "endpoint/key-refused", Exit.CREDENTIALS, 1),
        ("unknown-model", "endpoint/unknown-model", Exit.MANIFEST, 1),
        ("no-route", "endpoint/no-chat", Exit.MANIFEST, 1),
    ],
)
def test_what_meets_every_prompt_ends_the_work_with_a_problem(
    tmp_path: Path, kind: str, code: str, exit_code: Exit, num_requests: int
) -> None:
    with FakeServer() as server:
        server.fail_always(kind)
        error = fault(client(server, tmp_path, key=KEY))
        assert (error.problems[0].code, error.exit_code) == (code, exit_code)
        assert len(server.chats) == num_requests
        assert ("SOME_KEY" in error.problems[0].what) == (exit_code == Exit.CREDENTIALS)


def test_a_wait_that_is_too_long_is_told(tmp_path: Path) -> None:
    with FakeServer() as server:
        server.fail_next("rate-limited-long")
        assert "for 600 seconds" in fault(client(server, tmp_path)).problems[0].what


def test_what_came_before_the_end_is_kept(tmp_path: Path) -> None:
    with FakeServer() as server:
        chat = client(server, tmp_path, max_parallel=1)
        ask(chat, turns(2))
        server.fail_next("unauthorized")
        fault(chat, 5)
        assert len(server.chats) == 3  # no further request after the refusal
        ask(client(server, tmp_path), turns(5))
        assert [server.questions.count(f"question {i}") for i in range(5)] == [1, 1, 2, 1, 1]


def test_answers_that_are_paid_for_are_waited_for_when_another_request_fails(tmp_path: Path) -> None:
    def answer(body: dict[str, Any]) -> str:
        time.sleep(0.2)
        return "yes"

    with FakeServer(answer) as server:
        server.fail_next("unauthorized")
        fault(client(server, tmp_path, max_parallel=3), 3)
        ask(client(server, tmp_path), turns(3))
        assert len(server.chats) == 4


@pytest.mark.parametrize(
    ("url", "code", "exit_code"),
    [
        ("http://127.0.0.1:1/v1", "endpoint/unreachable", Exit.UNAVAILABLE),
        ("http://nobody.invalid/v1", "endpoint/unreachable", Exit.UNAVAILABLE),
        ("localhost/v1", "endpoint/no-chat", Exit.MANIFEST),
        ("http://host:port/v1", "endpoint/no-chat", Exit.MANIFEST),
        ("https:///v1", "endpoint/no-chat", Exit.MANIFEST),
    ],
)
def test_an_address_without_a_server_is_named(tmp_path: Path, url: str, code: str, exit_code: Exit) -> None:
    chat = ChatClient(Endpoint(base_url=url, model="m", timeout_seconds=2), tmp_path, {}, max_retries=0)
    for call in (lambda: ask(chat, turns(1)), chat.check):
        with pytest.raises(RunnerError) as caught:
            call()
        assert (caught.value.problems[0].code, caught.value.exit_code) == (code, exit_code)


def test_a_server_that_is_too_slow_counts_as_unreachable(tmp_path: Path) -> None:
    with FakeServer() as server:
        server.fail_always("slow")
        error = fault(client(server, tmp_path, timeout_seconds=0.15, max_retries=0))
    assert (error.exit_code, error.problems[0].code) == (Exit.UNAVAILABLE, "endpoint/unreachable")
    assert "0.15 seconds" in error.problems[0].what


@pytest.mark.parametrize(
    ("kind", "words", "num_requests"),
    [
        ("too-long", "context is 2048 tokens", 1),
        ("too-large", "413", 1),
        ("not-processable", "cannot be rendered", 1),
        ("bad-json", "not JSON", 2),
        ("html", "not JSON", 2),
        ("cut", "cut off", 2),
        ("no-choices", "no choice", 2),
        ("null-content", "no text", 2),
        ("error-inside", "The provider is gone.", 2),
        ("filtered", "content filter", 1),
        ("refused", "I will not say that.", 1),
        ("thought-only", "allow more", 1),
        ("no-finish", "how the answer ended", 1),
    ],
)
def test_what_meets_one_prompt_is_that_rows_reason(tmp_path: Path, kind: str, words: str, num_requests: int) -> None:
    with FakeServer() as server:
        chat = client(server, tmp_path, max_parallel=1)
        ask(chat, turns(1))
        server.fail_next(kind, times=num_requests)
        replies = ask(chat, turns(3))
        assert len(server.chats) == num_requests + 2
    assert texts(replies) == ["yes", None, "yes"]
    assert replies[1].reason and words in replies[1].reason


@pytest.mark.parametrize("kind", ["bad-json", "html", "cut", "no-choices", "null-content", "error-inside"])
def test_a_broken_reply_is_asked_for_once_more(tmp_path: Path, kind: str) -> None:
    with FakeServer() as server:
        server.fail_next(kind)
        assert texts(ask(client(server, tmp_path), turns(1))) == ["yes"]
        assert len(server.chats) == 2


def test_a_refusal_that_was_paid_for_is_kept_and_a_failure_is_not(tmp_path: Path) -> None:
    with FakeServer() as server:
        server.fail_next("filtered")
        (once,) = ask(client(server, tmp_path), turns(1))
        (again,) = ask(client(server, tmp_path), turns(1))
        assert again == replace(once, cached=True) and len(server.chats) == 1
        server.fail_next("too-long")
        server.fail_next("bad-json", times=2)
        ask(client(server, tmp_path, max_parallel=1), [turn("a"), turn("b")])
        assert texts(ask(client(server, tmp_path), [turn("a"), turn("b")])) == ["yes", "yes"]


def test_half_a_character_in_a_prompt_costs_its_row_alone(tmp_path: Path) -> None:
    with FakeServer() as server:
        replies = ask(client(server, tmp_path), [turn("half \ud83d"), turn("whole")])
    assert texts(replies) == [None, "yes"] and "half a character" in str(replies[0].reason)


@pytest.mark.parametrize(
    ("refuses", "sent", "num_requests"),
    [
        ((), {"max_tokens": 20, "temperature": 0}, 3),
        (("max_tokens",), {"max_completion_tokens": 20, "temperature": 0}, 4),
        (("temperature",), {"max_tokens": 20}, 4),
        (("max_tokens", "temperature"), {"max_completion_tokens": 20}, 5),
    ],
)
def test_a_refused_parameter_is_left_out_and_that_is_remembered(
    tmp_path: Path, refuses: tuple[str, ...], sent: dict[str, int], num_requests: int
) -> None:
    watch = FakeWatch()
    with FakeServer(refuses=refuses) as server:
        chat = client(server, tmp_path, max_parallel=1)
        assert texts(ask(chat, turns(2), watch=watch) + ask(chat, turns(3), watch=watch)) == ["yes"] * 5
        body = server.chats[-1].body
        assert len(server.chats) == num_requests
    assert {name: value for name, value in body.items() if name not in ("model", "messages")} == sent
    assert len(watch.lines) == ("temperature" in refuses)


def test_a_prompt_that_is_too_long_changes_no_parameter(tmp_path: Path) -> None:
    with FakeServer() as server:
        server.fail_next("too-long")  # its message names max_tokens
        chat = client(server, tmp_path)
        ask(chat, turns(1))
        ask(chat, [turn("next")])
        assert [sorted(request.body) for request in server.chats] == [
            ["max_tokens", "messages", "model", "temperature"]
        ] * 2


def test_a_server_without_response_format_is_named_in_the_rows_reason(tmp_path: Path) -> None:
    with FakeServer(refuses=["response_format"]) as server:
        with_schema = ask(client(server, tmp_path), turns(2), schema=SCHEMA)
        without = ask(client(server, tmp_path), turns(2))
    assert all("does not take response_format" in str(reply.reason) for reply in with_schema)
    assert texts(without) == ["yes", "yes"]


def test_check_costs_no_tokens_where_the_server_lists_its_models(tmp_path: Path) -> None:
    with FakeServer() as server:
        client(server, tmp_path, key=KEY).check()
        assert [request.path for request in server.requests] == ["/v1/models/fake"]
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    with FakeServer(lists=False) as server:
        client(server, tmp_path).check()
        (asked,) = server.chats
        assert asked.body["max_tokens"] == 16


@pytest.mark.parametrize(
    ("kind", "code", "exit_code"),
    [
        ("unauthorized", "endpoint/key-refused", Exit.CREDENTIALS),
        ("forbidden", "endpoint/key-refused", Exit.CREDENTIALS),
        ("unknown-model", "endpoint/unknown-model", Exit.MANIFEST),
        ("no-route", "endpoint/no-chat", Exit.MANIFEST),
        ("html", "endpoint/no-chat", Exit.MANIFEST),
        ("not-processable", "endpoint/no-chat", Exit.MANIFEST),
        ("overloaded", "endpoint/failing", Exit.UNAVAILABLE),
        ("rate-limited", "endpoint/rate-limited", Exit.UNAVAILABLE),
    ],
)
def test_check_finds_what_would_meet_every_prompt(tmp_path: Path, kind: str, code: str, exit_code: Exit) -> None:
    with FakeServer(lists=False) as server:
        server.fail_always(kind)
        with pytest.raises(RunnerError) as caught:
            client(server, tmp_path, key=KEY).check()
    assert (caught.value.problems[0].code, caught.value.exit_code) == (code, exit_code)


@pytest.mark.parametrize("kind", ["thought-only", "filtered", "no-usage"])
def test_check_is_content_with_any_sound_reply(tmp_path: Path, kind: str) -> None:
    with FakeServer(lists=False) as server:
        server.fail_next(kind)
        client(server, tmp_path).check()
    assert len(server.chats) == 1


def test_a_missing_key_is_said_before_anything_is_sent(tmp_path: Path) -> None:
    with FakeServer() as server:
        for environment in ({}, {"SOME_KEY": "  "}):
            chat = ChatClient(server.endpoint(api_key_env="SOME_KEY"), tmp_path, environment)
            for call in (chat.check, lambda chat=chat: ask(chat, turns(1))):
                with pytest.raises(RunnerError) as caught:
                    call()
                assert caught.value.exit_code == Exit.CREDENTIALS
                assert caught.value.problems[0].code == "endpoint/key-missing"
                assert "SOME_KEY" in caught.value.problems[0].fix
        assert server.requests == []


def test_the_key_shows_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with FakeServer(f"you sent {KEY}") as server:
        url = server.url.replace("//", f"//user:{KEY}@") + f"?key={KEY}"
        chat = client(server, tmp_path, key=f" {KEY}\n", base_url=url)
        ask(chat, turns(1))
        assert server.chats[0].headers["authorization"] == f"Bearer {KEY}"
    shown = [repr(chat), str(vars(chat)["_answers"].path), shown_url(url)]
    for broken in (f"{KEY}\n{KEY}", f"{KEY}é"):
        chat = ChatClient(
            Endpoint(base_url=url, model="m", api_key_env="K"), tmp_path / "2", {"K": broken}, max_retries=0
        )
        shown += [problem.what + problem.fix for problem in fault(chat).problems]
    chat = ChatClient(Endpoint(base_url=url, model="m", api_key_env="K"), tmp_path / "2", {"K": KEY}, max_retries=0)
    shown += [problem.what + problem.fix for problem in fault(chat).problems]  # the server is gone
    assert len(shown) == 6 and not any(KEY in text for text in shown)
    assert not any(KEY in record.getMessage() for record in caplog.records)


def test_a_login_in_the_address_is_used_where_there_is_no_key(tmp_path: Path) -> None:
    with FakeServer() as server:
        url = server.url.replace("//", "//me:p%40ss@")
        ask(client(server, tmp_path, base_url=url), turns(1))
        client(server, tmp_path, base_url=url).check()
        assert {r.headers["authorization"] for r in server.requests} == {f"Basic {b64encode(b'me:p@ss').decode()}"}


def test_a_server_that_repeats_the_key_does_not_get_it_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests import chat_server

    monkeypatch.setitem(chat_server.FAILURES, "unauthorized", lambda _: chat_server.refusal(401, f"{KEY} is wrong"))
    monkeypatch.setitem(chat_server.FAILURES, "too-long", lambda _: chat_server.refusal(400, f"{KEY} is too long"))
    gone = chat_server.Answer(body={"error": {"message": f"{KEY} ended"}})
    monkeypatch.setitem(chat_server.FAILURES, "error-inside", lambda _: gone)
    with FakeServer() as server:
        server.fail_always("unauthorized")
        said = [fault(client(server, tmp_path, key=KEY)).problems[0].what]
        for kind in ("too-long", "error-inside"):
            server.fail_always(kind)
            said += [str(reply.reason) for reply in ask(client(server, tmp_path, key=KEY), turns(1))]
    assert all("***" in text and KEY not in text for text in said)


def test_nothing_of_openais_own_environment_is_sent_to_another_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID", "WEBHOOK_SECRET"):
        monkeypatch.setenv(f"OPENAI_{name}", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", f"X-Mine: {KEY}\nAuthorization: Bearer {KEY}")
    with FakeServer() as server:
        ask(client(server, tmp_path), turns(1))
        client(server, tmp_path).check()
        ask(client(server, tmp_path, key="other"), turns(2))
        assert len(server.requests) == 3
        for request in server.requests:
            assert KEY not in str(request.headers)
            assert not {"openai-organization", "openai-project", "x-mine"} & {*request.headers}
        assert server.requests[-1].headers["authorization"] == "Bearer other"


def test_a_query_in_the_address_goes_with_every_request(tmp_path: Path) -> None:
    with FakeServer() as server:
        ask(client(server, tmp_path, base_url=f"{server.url}/?api-version=2026-01-01"), turns(1))
        assert server.chats[0].path == "/v1/chat/completions?api-version=2026-01-01"


def test_a_missing_sdk_is_said_with_its_install_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("runner.backends.openai")]:
        monkeypatch.delitem(sys.modules, name)
    usual = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "openai":
            raise ModuleNotFoundError("No module named 'openai'", name="openai")
        return usual(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(RunnerError) as caught:
        open_chat(Endpoint(base_url="http://h/v1", model="m"), tmp_path, {})
    assert caught.value.exit_code == Exit.INPUT_MISSING
    assert caught.value.problems[0].fix == 'Install it with: pip install "runner[train]"'


def test_open_chat_keeps_answers_under_the_cache(tmp_path: Path) -> None:
    with FakeServer() as server:
        for _ in range(2):
            open_chat(server.endpoint(model="fake"), tmp_path, {}).complete(turns(1), SAMPLING, FakeWatch(), label="x")
        assert len(server.chats) == 1
    (file,) = (tmp_path / "answers").iterdir()
    assert file.name.startswith("fake-") and file.suffix == ".jsonl"


def test_an_address_is_shown_without_its_secrets() -> None:
    assert shown_url("https://me:pw@host:8443/v1/?key=1#x") == "https://host:8443/v1"
