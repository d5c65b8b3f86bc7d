"""Progress and results in words, without a daemon."""

import logging

import pytest

from llmd.admin import wire
from llmd.errors import LlmdError
from llmd.mcp import results
from llmd.mcp.arguments import Chat, read
from llmd.mcp.chat import Answer
from llmd.mcp.progress import Progress, describe_comment, describe_stage, describe_wait
from tests.mcp.talking import Told, chat


def profile(state, **more):
    return wire.Profile(name="code", engine="mlx", port=8081, state=state, **more)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (profile("unloaded"), ""),
        (profile("waiting", waiting_for="raw to leave on port 1"), "waits for raw to leave"),
        (profile("loading"), "code: loading"),
        (profile("loading", progress=0.4), "code: loading, 40 %"),
        (profile("ready", queued=3), "reads the prompt, behind 3 others"),
    ],
)
def test_what_a_request_waits_for(given, said):
    assert said in describe_wait(given)
    assert bool(said) == bool(describe_wait(given))


def test_comments_in_words():
    assert describe_comment("code", "keepalive 512/9000").endswith("512 of 9000 tokens")
    assert describe_comment("code", "loading code") == "loading code"
    assert describe_comment("code", "") == "code is at work"
    assert describe_stage("code", "", None) == "code: loading"


async def test_progress_grows_and_repeats_only_what_shows_life():
    told = Told()
    progress = Progress(told)
    await progress.tell_news("loading")
    await progress.tell_news("loading")
    await progress.tell("loading")
    await progress.tell_tokens("code", 1, reasoning=True)
    await progress.tell_tokens("code", 2, reasoning=True)  # at once: too soon to say
    assert told.messages == ["loading", "loading", "code is thinking: 1 tokens"]
    assert told.numbers == [1, 2, 3]


def test_answer_is_put_together_from_any_engines_chunks():
    answer = Answer("code")
    for delta in ({"role": "assistant"}, {"reasoning": "hm"}, {"reasoning_content": "!"},
                  {"content": "Pa"}, {"content": "ris"}, {"content": None}):  # fmt: skip
        answer.take({"choices": [{"delta": delta}]})
    answer.take({"choices": [], "usage": {"completion_tokens": 4}})
    answer.take({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    assert answer.document() == {
        "profile": "code", "content": "Paris", "reasoning": "hm!", "finish_reason": "stop",
        "usage": {"completion_tokens": 4},
    }  # fmt: skip
    assert answer.pieces == 4


def test_null_is_an_argument_left_out():
    assert read(chat("Hi", stop=None, max_tokens=3), Chat).max_tokens == 3


def test_failed_profile_tells_why_and_warnings_are_shown():
    status = wire.Status(
        version="1", pid=1, uptime_s=1.0, ports=(), warnings=("port 1 is taken",),
        budget=wire.Budget(total_bytes=2**30, used_bytes=0, free_bytes=2**30, peak_bytes=0),
        profiles=(profile("failed", last_error="exited with 7", aliases=("coder",)),),
        config_error="llmd.yaml has 1 problem",
    )  # fmt: skip
    text = results.status_text(status)
    assert "code (also coder): failed, mlx on port 8081, exited with 7" in text
    assert "warning: llmd.yaml has 1 problem\nwarning: port 1 is taken" in text


def test_bug_is_logged_and_told_without_a_traceback(caplog):
    with caplog.at_level(logging.ERROR):
        result = results.failure(ZeroDivisionError("by zero"))
    assert result.is_error
    assert "ZeroDivisionError: by zero" in result.content[0].text
    assert "Traceback" not in result.content[0].text
    assert caplog.records[0].exc_info
    quiet = results.failure(LlmdError("no"))
    assert quiet.content[0].text == "no"
    assert len(caplog.records) == 1
