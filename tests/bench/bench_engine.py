"""An instant engine for benchmarks: answers from memory, on a Unix socket and on a TCP port.

POST bodies with `"stream":true` get events, as many as `"chunks"` says, one write each: back to
back, or `"gap_us"` microseconds apart with the time of sending in each.
"""

import asyncio
import re
import time
from multiprocessing.connection import Connection

import uvloop


ANSWER_BODY = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"Hello there, how can I help you today?"},'
    b'"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":9,"total_tokens":18}}'
)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(ANSWER_BODY),
    ANSWER_BODY,
)
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m",'
    b'"choices":[{"index":0,"delta":{"content":" token"},"finish_reason":null}],"at":%d}\n\n'
)
DONE = b"data: [DONE]\n\n"
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_CHUNKS = re.compile(rb'"chunks": *(\d+)')
_GAP = re.compile(rb'"gap_us": *(\d+)')


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class InstantEngine(asyncio.Protocol):
    """One connection; requests one after the other."""

    def connection_made(self, transport):
        self.transport = transport
        self.buffer = b""

    def data_received(self, data):
        self.buffer = buffer = self.buffer + data if self.buffer else data
        while (end := buffer.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(buffer, 0, end + 2)
            total = end + 4 + (int(length[1]) if length else 0)
            if len(buffer) < total:
                break
            body, buffer = buffer[end + 4 : total], buffer[total:]
            self.answer(body)
        self.buffer = buffer

    def answer(self, body):
        if b'"stream":true' not in body:
            self.transport.write(ANSWER)
            return
        chunks = int(_CHUNKS.search(body)[1])
        gap = _GAP.search(body)
        self.transport.write(STREAM_HEAD)
        if gap is None:
            for _ in range(chunks):
                self.transport.write(_chunk(EVENT % 0))
            self.transport.write(_chunk(DONE) + b"0\r\n\r\n")
        else:
            self.paced(chunks, int(gap[1]) / 1e6, time.perf_counter())

    def paced(self, left, gap_s, due_s):
        """Send an event when it is due; spins the loop, for timers are too coarse for this."""
        if self.transport.is_closing():
            return
        if time.perf_counter() >= due_s:
            if not left:
                self.transport.write(_chunk(DONE) + b"0\r\n\r\n")
                return
            self.transport.write(_chunk(EVENT % time.perf_counter_ns()))
            left, due_s = left - 1, due_s + gap_s
        asyncio.get_running_loop().call_soon(self.paced, left, gap_s, due_s)


def run(path: str, ready: Connection) -> None:
    """Serve until killed; sends the TCP port through *ready* once it listens."""

    async def serve():
        loop = asyncio.get_running_loop()
        unix = await loop.create_unix_server(InstantEngine, path)
        tcp = await loop.create_server(InstantEngine, "127.0.0.1", 0)
        ready.send(tcp.sockets[0].getsockname()[1])
        await asyncio.gather(unix.serve_forever(), tcp.serve_forever())

    uvloop.run(serve())
