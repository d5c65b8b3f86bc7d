"""`llmd-ctl bench`: what is compared with what, how it is shown, and that it goes on and ends."""

import contextlib
import json
import os
import pty
import signal
import socket
import subprocess
import threading

import pytest

from llmd.cli.bench_report import document, markdown_lines, terminal_lines
from llmd.cli.bench_result import Result, Sample, Spread, base_name, groups, metrics
from llmd.cli.tally import Tally
from llmd.cli.terminal import Palette
from tests.cli.conftest import COMMAND


def sample(total_s=2.0, decode=100.0, tokens=200, source="usage"):
    return Sample(0.5, total_s, tokens, 20, 40.0, decode, source)


def result(name, engine, model, decode=100.0, **fields):
    samples = [sample(decode=decode), sample(decode=decode + 2), sample(decode=decode - 2)]
    fields = {"cold": sample(), "short": samples, "long": samples, "memory_bytes": 2**30, **fields}
    return Result(name, engine, model, **fields)


MLX = result("code", "mlx", "lmstudio-community/Qwen3-32B-MLX-4bit", decode=150.0)
GGUF = result("raw", "llama.cpp", "/models/Qwen3-32B-Q4_K_M.gguf")
OTHER = result("lab", "command", "lab")


@pytest.mark.parametrize(
    ("model", "base"),
    [
        ("lmstudio-community/Qwen3-Coder-30B-A3B-Instruct-MLX-4bit",
         "qwen3-coder-30b-a3b-instruct"),
        ("unsloth/Qwen3-Coder-30B-A3B-Instruct-GGUF/Qwen3-Coder-30B-A3B-Instruct-UD-Q4_K_XL.gguf",
         "qwen3-coder-30b-a3b-instruct"),
        ("big-IQ3_XXS-00001-of-00003.gguf", "big"),
        ("Qwen3-32B-8bit", "qwen3-32b"),
        ("tiny-mlx", "tiny"), ("tiny-q8_0.gguf", "tiny"), ("tiny-f16.gguf", "tiny"),
        ("mlx", "mlx"),
    ],
)  # fmt: skip
def test_formats_of_one_model_share_a_base_name(model, base):
    assert base_name(model) == base


def test_mlx_stands_beside_gguf_of_the_same_model():
    first, rest = groups([GGUF, OTHER, MLX])
    assert first.results == (MLX, GGUF)
    assert first.compared == (MLX, GGUF)
    assert rest.results == (OTHER,)
    assert rest.compared is None


def test_speed_up_is_of_the_fastest_and_leaves_out_what_cannot_be_compared():
    slow = result("slow", "mlx", "Qwen3-32B-8bit", decode=10.0)
    (group,) = groups([slow, MLX, GGUF])
    assert group.compared == (MLX, GGUF)
    ups = dict(zip([metric.name for metric in metrics(MLX)], group.speed_ups(), strict=True))
    assert ups["decode, 1 at once"] == 1.5
    assert ups["first token, warm"] == 1.0
    assert ups["memory"] is None
    assert ups["prefill"] is None
    short = result("code", "mlx", "Qwen3-32B", short=[sample(tokens=13)])
    assert groups([short, GGUF])[0].speed_ups()[2] is None


def test_quicker_is_more_than_one():
    quick = result("code", "mlx", "Qwen3-32B", cold=Sample(0.25, 1.0, 200, 0, None, None, "usage"))
    assert groups([quick, GGUF])[0].speed_ups()[0] == 2.0


def test_spread_is_median_least_and_most():
    assert Spread.of([3.0, None, 1.0, 2.0]) == (2.0, 1.0, 3.0)
    assert Spread.of([None]) is None


def tally(*events, times=(0.0, 1.0, 3.0, 5.0, 5.0)):
    clock = iter(times)
    tallied = Tally(clock=lambda: next(clock))
    for event in events:
        list(tallied.take(event))
    return tallied


def chunk(text):
    return {"choices": [{"delta": {"content": text}}]}


def test_without_usage_chunks_are_counted():
    measured = Sample.of(tally(chunk("a"), chunk("b"), chunk("c")))
    assert (measured.source, measured.tokens, measured.wait_s) == ("chunks", 3, 1.0)
    assert measured.decode_per_s == 2 / 4
    assert measured.prefill_per_s is None


def test_usage_counts_what_chunks_hide_and_what_was_cached():
    usage = {
        "prompt_tokens": 110,
        "completion_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 10},
    }
    measured = Sample.of(tally(chunk("a"), chunk("b"), {"choices": [], "usage": usage}))
    assert (measured.source, measured.tokens) == ("usage", 9)
    assert measured.decode_per_s == 8 / 4
    assert measured.prefill_per_s == 100.0


def test_timings_of_the_engine_win():
    timings = {"predicted_n": 5, "predicted_per_second": 77.0, "prompt_per_second": 990.0}
    measured = Sample.of(tally(chunk("a"), chunk("b"), {"timings": timings}))
    assert (measured.source, measured.decode_per_s, measured.prefill_per_s) == (
        "timings", 77.0, 990.0,
    )  # fmt: skip


def test_tables_have_the_spread_and_fit_the_width():
    results = [MLX, GGUF, OTHER, result("lab2", "command", "lab2")]
    plain = Palette(enabled=False, unicode=False)
    lines = list(terminal_lines(results, plain, 84))
    assert all(len(line) <= 84 for line in lines if "tok/s of" not in line), lines
    text = "\n".join(lines)
    assert "150 tok/s (148-152)" in text
    assert "code / raw" in text
    assert "1.50x" in text
    narrow = list(terminal_lines(results, plain, 50))
    assert sum("decode, 1 at once" in line for line in narrow) == 4
    assert sum("speed-up" in line for line in narrow) == 1


def test_markdown_is_a_table():
    failed = result("x", "mlx", "x", error="it | broke")
    lines = list(markdown_lines([MLX, GGUF, failed]))
    assert lines[0] == "|  | code | raw | speed-up |"
    assert lines[1] == "| --- | ---: | ---: | ---: |"
    assert "- x failed: it | broke" in lines


def test_document_has_samples_and_speed_ups():
    whole = json.loads(json.dumps(document([MLX, GGUF], 3), default=lambda o: o.tokens))
    assert whole["speed_ups"][0]["metrics"]["decode, 1 at once"] == 1.5
    assert whole["profiles"][0]["metrics"]["decode, 1 at once"] == {
        "median": 150.0, "low": 148.0, "high": 152.0,
    }  # fmt: skip


# --- the command, on a port that answers from a script --------------------------------------------


class Answering:
    """Answers each request with as many tokens as asked for; fails or waits when told to."""

    def __init__(self):
        self.bodies = []
        self.fail_after = None
        self.hang_after = None
        self.hanging = threading.Event()
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def close(self):
        self._closing.set()
        socket.create_connection(("127.0.0.1", self.port)).close()
        self._thread.join(10)
        self._listener.close()

    def _accept(self):
        workers = []
        while not self._closing.is_set():
            peer, _ = self._listener.accept()
            workers.append(threading.Thread(target=self._serve, args=(peer,)))
            workers[-1].start()
        for worker in workers:
            worker.join(10)

    def _serve(self, peer):
        # A client that is interrupted may reset its connections.
        with contextlib.suppress(ConnectionError), peer, peer.makefile("rb") as stream:
            length = 0
            while field := stream.readline().strip():
                name, _, value = field.partition(b":")
                length = int(value) if name.lower() == b"content-length" else length
            if not length:
                return
            body = json.loads(stream.read(length))
            self.bodies.append(body)
            count = len(self.bodies)
            if self.fail_after is not None and count > self.fail_after:
                peer.sendall(b'HTTP/1.1 502 No\r\n\r\n{"error": {"message": "it died"}}')
                return
            head = (
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
            )
            peer.sendall(head + f"data: {json.dumps(chunk('a'))}\n\n".encode())
            if self.hang_after is not None and count > self.hang_after:
                self.hanging.set()
                assert stream.read() == b""
                return
            usage = {"prompt_tokens": 30, "completion_tokens": body["max_tokens"]}
            end = json.dumps({"choices": [], "usage": usage})
            peer.sendall(
                f"data: {json.dumps(chunk('b'))}\n\ndata: {end}\n\ndata: [DONE]\n\n".encode()
            )


@pytest.fixture
def answering(daemon):
    """The port of `code` and `code6`."""
    running = Answering()
    for name in ("code", "code6"):
        daemon.operator._set(name, port=running.port, context=4096)
    daemon.operator.ports[running.port] = {}
    yield running
    running.close()


def test_each_kind_is_measured_on_the_profiles_own_port(ctl, daemon, answering):
    done = ctl("--json", "bench", "code", "--repeats", "2")
    assert done.returncode == 0, done.stderr
    (measured,) = json.loads(done.stdout)["profiles"]
    assert {kind: len(taken) for kind, taken in measured["samples"].items() if kind != "cold"} == {
        "short": 2, "long": 2, "prefill": 2, "together_per_s": 2,
    }  # fmt: skip
    assert measured["samples"]["cold"]["tokens"] == 200
    assert measured["source"] == "usage"
    assert ("unload", "code") in daemon.operator.calls
    assert [body["max_tokens"] for body in answering.bodies] == [
        200, 200, 200, 500, 500, 1, 1, 200, 200, 200, 200,
    ]  # fmt: skip
    prompts = [body["messages"][0]["content"] for body in answering.bodies]
    assert len(set(prompts)) == len(prompts)
    assert all(prompt.isascii() for prompt in prompts)
    assert {body["model"] for body in answering.bodies} == {"code"}
    assert "ignore_eos" not in answering.bodies[0]


def test_engine_that_understands_it_is_told_to_go_on(ctl, daemon, answering):
    daemon.operator._set("code", engine="llama.cpp", sequences=1)
    assert ctl("bench", "code", "--repeats", "1").returncode == 0
    assert all(body["ignore_eos"] for body in answering.bodies)
    assert len(answering.bodies) == 4


def test_small_context_gets_shorter_questions(ctl, daemon, answering):
    daemon.operator._set("code", context=256)
    assert ctl("bench", "code", "--repeats", "1").returncode == 0
    assert max(body["max_tokens"] for body in answering.bodies) == 64
    assert max(len(body["messages"][0]["content"]) for body in answering.bodies) < 140


def test_it_says_first_who_may_be_evicted(ctl, answering):
    done = ctl("bench", "code", "--repeats", "1")
    assert done.stderr.splitlines()[0] == (
        "code will be unloaded and loaded again; chat may be evicted"
    )
    assert "evicted" not in ctl("bench", "code", "--repeats", "1", "--yes").stderr
    assert answering.bodies


def test_failure_of_one_does_not_end_the_others(ctl, daemon, answering):
    daemon.operator.fail["code6"] = RuntimeError("x")
    done = ctl("bench", "--yes", "--repeats", "1", "code6", "code")
    assert done.returncode == 1
    assert "code6 failed: " in done.stdout
    assert "code (2 of 2)" in done.stderr
    assert len(answering.bodies) == 6


def test_failure_on_the_way_keeps_what_was_measured(ctl, answering):
    answering.fail_after = 3
    done = ctl("bench", "--yes", "--repeats", "2", "code")
    assert done.returncode == 1
    assert "code failed: it died" in done.stdout
    assert "short completion" in done.stdout
    assert len(answering.bodies) == 4


def test_unknown_profile_is_named_before_anything_is_unloaded(ctl, daemon):
    done = ctl("bench", "code", "cod")
    assert done.returncode == 1
    assert "did you mean code?" in done.stderr
    assert daemon.operator.calls == []


@pytest.mark.parametrize("hang_after", [3, 4], ids=["one at once", "several at once"])
def test_ctrl_c_prints_what_it_has(start, answering, hang_after):
    answering.hang_after = hang_after
    process = start("bench", "--yes", "--repeats", "2" if hang_after == 3 else "1", "code")
    assert answering.hanging.wait(20)
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    shown = process.stdout.read()
    assert "short completion" in shown
    assert "code failed: interrupted" in shown
    assert "Traceback" not in process.stderr.read()


@pytest.mark.usefixtures("answering")
def test_on_a_terminal_it_asks_and_no_is_no(environment, daemon):
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "bench", "code"],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment | {"TERM": "xterm"},
    ) as process:  # fmt: skip
        os.close(theirs)
        shown = b""
        while b"go on? [Y/n]" not in shown:
            shown += os.read(ours, 4096)
        os.write(ours, b"n\n")
        assert process.wait(10) == 1
    os.close(ours)
    assert daemon.operator.calls == []
