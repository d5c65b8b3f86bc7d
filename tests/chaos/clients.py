"""Clients of all kinds, and the judgement of what they got."""

import asyncio
import json
import time
from dataclasses import dataclass, field

from llmd.errors import LlmdError
from tests.chaos.script import Ask, expected
from tests.chaos.tally import Tally
from tests.lessons import LESSONS


ANSWER_S = 60.0
"""Longer than any queue or load may take here: whoever waits so long hangs."""
CHAT = "/v1/chat/completions"
ENGINES_OWN = {"unruly", "not_found"}
"""Codes of errors that the unruly engine answers itself."""


def codes(tree=LlmdError):
    """Every code that llmd can answer."""
    return {tree.code}.union(*(codes(kind) for kind in tree.__subclasses__()))


CODES = codes() - {"internal_error"} | ENGINES_OWN


@dataclass
class Answer:
    """A response as it came in; `whole` when its framing says that nothing is missing."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    whole: bool = False
    surplus: bytes = b""


async def receive(reader, *, slow=False):
    """One response. A connection that breaks leaves what was there, not `whole`."""
    answer = Answer()
    try:
        line = await reader.readline()
        answer.status = int(line.split()[1]) if line else 0
        while (header := await reader.readline()) not in (b"\r\n", b""):
            name, _, value = header.decode("latin-1").partition(":")
            answer.headers[name.lower()] = value.strip()
        if "chunked" in answer.headers.get("transfer-encoding", ""):
            while size := int(await reader.readline(), 16):
                answer.body += await reader.readexactly(size)
                await reader.readexactly(2)
                if slow:
                    await asyncio.sleep(0.01)
            await reader.readexactly(2)
            answer.whole = True
        elif "content-length" in answer.headers:
            answer.body = await reader.readexactly(int(answer.headers["content-length"]))
            answer.whole = True
        elif answer.status:
            answer.body = await reader.read()
            answer.whole = True
        answer.surplus = await reader.read(4096)
    except (OSError, EOFError, ValueError):
        pass
    return answer


def compose(ask: Ask, port: int):
    """The bytes of a request."""
    text = LESSONS[ask.prompt]["prompt"] if ask.prompt else "hi"
    body = {
        "messages": [{"role": "user", "content": text}], "temperature": 0, "stream": ask.stream,
        "model": ask.profile, **({"unruly": ask.unruly} if ask.unruly else {}),
    }  # fmt: skip
    return frame(json.dumps(body).encode(), port)


def frame(body, port, *, method="POST", path=CHAT, host="", more=""):
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: {host or f'127.0.0.1:{port}'}\r\n{more}"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    return head.encode() + body


def compose_bad(ask: Ask, port: int):
    """The bytes of a request that cannot be answered well; the statuses it may get, 0 for none."""
    good = (
        b'{"messages": [{"role": "user", "content": "hi"}], "model": "%b"}' % ask.profile.encode()
    )
    length = f"Content-Length: {len(good) + 5}\r\n"
    return {
        "no json": frame(b"{no", port),
        "no body": frame(b"", port),
        "deep json": frame(b"[" * 50_000, port),
        "unknown path": frame(good, port, path="/v1/nothing/here"),
        "unknown model": frame(good.replace(b'"model": "', b'"model": "no-such-'), port),
        "foreign host": frame(good, port, host="evil.example"),
        "foreign origin": frame(good, port, more="Origin: https://evil.example\r\n"),
        "two lengths": frame(good, port, more=length),
        "bare noise": b"\x16\x03\x01" + bytes(range(200)) + b"\r\n\r\n",
        "endless header": frame(good, port, more="X-A: " + "a" * 200_000 + "\r\n"),
        "wrong type": frame(b'{"messages": 7, "model": []}', port),
    }[ask.prompt]


class Client:
    """Asks, leaves when it was told to, and judges the answer."""

    def __init__(self, ask: Ask, ports: dict[str, int], port_name: str, tally: Tally):
        self.ask = ask
        self.port = ports["gateway" if ask.gateway else port_name]
        self.tally = tally
        self.began_s = 0.0

    async def run(self):
        self.began_s = time.monotonic()
        if "crash_after" in self.ask.unruly:
            self.tally.crash(self.ask.profile, self.began_s)
        try:
            async with asyncio.timeout(self.ask.leave_s or ANSWER_S):
                answer = await self.converse()
        except TimeoutError:
            if self.ask.leave_s is None:
                self.violated(f"no end within {ANSWER_S:.0f} s")
            else:
                self.count("left")
        except OSError as error:
            profile, began_s = self.ask.profile, self.began_s
            if self.tally.may_be_refused(began_s) or self.tally.may_be_closed(profile, began_s):
                self.count("refused while the daemon was away")
            else:
                self.violated(f"connection: {error!r}")
        else:
            (self.judge_bad if self.ask.bad else self.judge)(answer)

    async def converse(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            compose_this = compose_bad if self.ask.bad else compose
            data = compose_this(self.ask, self.port)
            step = 40 if self.ask.slow == "writer" else len(data)
            receiving = asyncio.ensure_future(receive(reader, slow=self.ask.slow == "reader"))
            try:
                for start in range(0, len(data), step):
                    writer.write(data[start : start + step])
                    await writer.drain()
                    if step < len(data):
                        await asyncio.sleep(0.05)
            except OSError:
                pass  # whoever answers early may close early; the answer tells
            finally:
                try:
                    answer = await receiving
                finally:
                    receiving.cancel()
        finally:
            writer.transport.abort()
        return answer

    # --- what came of it

    def count(self, outcome):
        self.tally.outcomes[outcome] += 1

    def violated(self, what):
        took_s = time.monotonic() - self.began_s
        self.tally.violated(f"{what}, after {took_s:.1f} s; {self.ask}")

    def judge(self, answer: Answer):
        if answer.surplus:
            self.violated(f"answered more than once: {answer.surplus[:80]!r}")
        elif not answer.whole:
            self.judge_cut(answer)
        elif answer.status != 200:
            self.judge_error(answer)
        elif self.ask.stream:
            self.judge_stream(answer)
        else:
            self.judge_document(answer)

    def judge_cut(self, answer):
        own_doing = {"crash_after", "cut_after"} & set(self.ask.unruly)
        elsewhere = self.tally.crashed(self.ask.profile, self.began_s)
        if own_doing or elsewhere or self.tally.may_be_cut(self.began_s):
            self.count("cut by a kill, visibly")
        else:
            self.violated(f"cut without a reason: {answer.status} {answer.body[-100:]!r}")

    def judge_error(self, answer):
        try:
            error = json.loads(answer.body)["error"]
            code, message = error["code"], error["message"]
        except (ValueError, KeyError, TypeError):
            self.violated(f"unmarked error: {answer.status} {answer.body[:200]!r}")
            return
        if code in CODES and message:
            self.count(f"error {answer.status} {code}")
        else:
            self.violated(f"unknown error: {answer.status} {answer.body[:200]!r}")

    def judge_stream(self, answer):
        text, done, error = "", False, None
        for line in answer.body.splitlines():
            if not line.startswith(b"data: "):
                continue
            if done:
                self.violated(f"more after the end: {line[:80]!r}")
                return
            if line == b"data: [DONE]":
                done = True
                continue
            event = json.loads(line[6:])
            error = event.get("error") or error
            for choice in event.get("choices", ()):
                text += choice["delta"].get("content") or ""
        if error is not None and not done:
            right = expected(self.ask).startswith(text.lstrip()) and error["code"] in CODES
            outcome = f"error event {error['code']}"
            self.count(outcome) if right else self.violated(f"{outcome} after {text[-60:]!r}")
        elif not done:
            self.violated(f"truncated, and looks whole: {answer.body[-150:]!r}")
        else:
            self.judge_text(text, "right, streamed")

    def judge_document(self, answer):
        try:
            text = json.loads(answer.body)["choices"][0]["message"]["content"]
        except (ValueError, KeyError, TypeError):
            self.violated(f"no answer: {answer.body[-150:]!r}")
        else:
            self.judge_text(text, "right")

    def judge_text(self, text, outcome):
        if text.strip() == expected(self.ask).strip():
            self.count(outcome)
        else:
            self.violated(f"wrong answer: {text[-80:]!r}")

    def judge_bad(self, answer):
        """A bad request: any answer that is marked, and nothing that only looks like one."""
        if answer.surplus:
            self.violated(f"answered more than once: {answer.surplus[:80]!r}")
        elif answer.whole and 200 <= answer.status < 300:
            self.count("bad request, answered all the same")
        elif answer.whole and answer.status >= 400:
            self.count(f"bad request, {answer.status}")
        elif self.tally.may_be_cut(self.began_s) or self.ask.prompt == "endless header":
            self.count("bad request, cut")
        else:
            self.violated(f"bad request, no answer: {answer}")
