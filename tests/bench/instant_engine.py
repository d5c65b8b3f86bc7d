"""An instant engine for benchmarks: answers from memory, on a Unix socket and on a TCP port.

POST bodies with `"stream":true` get events, as many as `"chunks"` says, one write each: back to
back, or `"gap_us"` microseconds apart with the time of sending in each.
"""

import asyncio
import contextlib
import multiprocessing
import re
import time

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
DEFAULT_CHUNKS = 300
DONE = b"data: [DONE]\n\n"
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_CHUNKS = re.compile(rb'"chunks": *(\d+)')
_GAP = re.compile(rb'"gap_us": *(\d+)')
_STREAM = re.compile(rb'"stream": *true')


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class InstantEngine(asyncio.Protocol):
    """One connection; requests one after the other."""

    def connection_made(self, transport):
        self.transport = transport
        self.buffer = bytearray()
        self.total = 0

    def data_received(self, data):
        buffer = self.buffer
        buffer += data
        while len(buffer) >= self.total:
            if not self.total:
                end = buffer.find(b"\r\n\r\n")
                if end < 0:
                    return
                length = _LENGTH.search(buffer, 0, end + 2)
                self.total = end + 4 + (int(length[1]) if length else 0)
                continue
            request, self.total = bytes(buffer[: self.total]), 0
            del buffer[: len(request)]
            self.answer(request)

    def answer(self, request):
        # What says how to answer is at the end: a long prompt is not searched for it.
        wish = request[-2000:]
        if not _STREAM.search(wish):
            self.transport.write(ANSWER)
            return
        count, gap = _CHUNKS.search(wish), _GAP.search(wish)
        chunks = int(count[1]) if count else DEFAULT_CHUNKS  # a proxy may drop what it knows not
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


def run(path, pipe) -> None:
    """Serve until killed; sends the TCP port through *pipe* once it listens."""

    async def serve():
        loop = asyncio.get_running_loop()
        unix = await loop.create_unix_server(InstantEngine, path, backlog=1024)
        tcp = await loop.create_server(InstantEngine, "127.0.0.1", 0, backlog=1024)
        pipe.send(tcp.sockets[0].getsockname()[1])
        await asyncio.gather(unix.serve_forever(), tcp.serve_forever())

    uvloop.run(serve())


@contextlib.contextmanager
def running(program, path):
    """*program* (a `run` as above) in a process of its own: its TCP port and its pid."""
    processes = multiprocessing.get_context("spawn")
    mine, theirs = processes.Pipe()
    process = processes.Process(target=program, args=(path, theirs), daemon=True)
    process.start()
    try:
        if not mine.poll(20):
            raise SystemExit(f"{program.__module__} did not start")
        yield mine.recv(), process.pid
    finally:
        process.kill()
        process.join()
