"""The load generator: HTTP/1.1 clients that do as little as possible beside taking the time.

An address is `host:port` or `unix:path`.
"""

import asyncio
import re
import time


BODY = (
    b'{"model":"any","messages":[{"role":"system","content":"You are helpful."},'
    b'{"role":"user","content":"%b"}],"max_tokens":64%b}'
)
HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: application/json\r\n"
    b"Content-Type: application/json\r\nUser-Agent: bench/1\r\nAuthorization: Bearer none\r\n"
    b"Content-Length: %d\r\n\r\n%b"
)
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def request(*, prompt=b"Say hello.", chunks=0, gap_us=None):
    """A chat completion: an answer in one piece, or a stream of *chunks*, *gap_us* apart."""
    extra = b',"stream":true,"chunks":%d' % chunks if chunks else b""
    if gap_us is not None:
        extra += b',"gap_us":%d' % gap_us
    body = BODY % (prompt, extra)
    return HEAD % (len(body), body)


_SENT = re.compile(rb'"at":(\d+)\}')


class Caller(asyncio.Protocol):
    """Sends one request over and over and notes how many seconds each answer took."""

    def connection_made(self, transport):
        self.transport = transport
        self.buffer = b""
        self.times = []
        self.expected = 0
        self.done = None

    def run(self, request, *, count=0, until_s=0.0):
        """Start; the future is done after *count* answers, or with the first after *until_s*."""
        self.request, self.left, self.until_s = request, count, until_s
        self.done = asyncio.get_running_loop().create_future()
        self.send()
        return self.done

    def send(self):
        self.began = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data):
        buffer = self.buffer + data if self.buffer else data
        if not self.expected:
            end = buffer.find(b"\r\n\r\n")
            if end < 0:
                self.buffer = buffer
                return
            if not buffer.startswith(b"HTTP/1.1 200"):
                self.done.set_exception(RuntimeError(buffer[:300].decode()))
                return
            # The head's length varies (request ids), so it is looked at each time.
            self.expected = end + 4 + int(_LENGTH.search(buffer, 0, end + 2)[1])
        if len(buffer) < self.expected:
            self.buffer = buffer
            return
        now = time.perf_counter()
        self.buffer, self.expected = b"", 0
        self.times.append(now - self.began)
        self.left -= 1
        if self.left == 0 or (self.until_s and now > self.until_s):
            self.done.set_result(None)
        else:
            self.send()

    def connection_lost(self, error):
        if self.done is not None and not self.done.done():
            self.done.set_exception(error or ConnectionResetError("closed by the other side"))


class Listener(asyncio.Protocol):
    """Reads one stream after the other: its first byte, its end, the delay of each event."""

    def connection_made(self, transport):
        self.transport = transport
        self.done = None

    def run(self, request):
        self.first_s = 0.0
        self.delays = []
        self.tail = b""
        self.done = asyncio.get_running_loop().create_future()
        self.began = time.perf_counter()
        self.transport.write(request)
        return self.done

    def data_received(self, data):
        now = time.perf_counter()
        if not self.first_s:
            self.first_s = now - self.began
        at = data.rfind(b'"at":')
        if at >= 0 and (sent := _SENT.match(data, at)) and (sent_ns := int(sent[1])):
            self.delays.append(now - sent_ns / 1e9)
        self.tail = (self.tail + data)[-32:]
        if self.tail.endswith(b"0\r\n\r\n") and b"[DONE]" in self.tail:
            self.done.set_result(None)

    def connection_lost(self, error):
        if self.done is not None and not self.done.done():
            self.done.set_exception(
                error or ConnectionResetError(f"the stream broke off after {self.tail!r}")
            )


async def connect(address, protocol):
    loop = asyncio.get_running_loop()
    if address.startswith("unix:"):
        return (await loop.create_unix_connection(protocol, address[5:]))[1]
    host, _, port = address.rpartition(":")
    return (await loop.create_connection(protocol, host.strip("[]"), int(port)))[1]


async def connected(address, protocol, count):
    """*count* connections at once."""
    return await asyncio.gather(*(connect(address, protocol) for _ in range(count)))


def quantile(values, q):
    return sorted(values)[min(len(values) - 1, int(len(values) * q))]
