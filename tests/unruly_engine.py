#!/usr/bin/env python3
"""An engine with an OpenAI face that misbehaves on request.

A real executable, standard library only, up in some 40 ms. Start it with the faults as flags (see
`--help`), or put them into one request as the object `unruly` in its JSON body, which overrides
the flags of the same names: `{"messages": [...], "unruly": {"chunks": 3, "crash_after": 2}}`.

Besides completions it answers `/health`, `/v1/models`, `/echo` (what it received) and `/stats`
(how many requests it saw, how many clients left early, and how long it was ready without work).
"""

import argparse
import json
import os
import select
import signal
import socket
import sys
import threading
import time


def say(*words, file=None):
    print(*words, file=file, flush=True)


def flags():
    parser = argparse.ArgumentParser()
    flag = parser.add_argument
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--port", type=int, help="listen on 127.0.0.1; 0 picks one and prints it")
    where.add_argument("--socket", help="listen on a Unix socket")
    flag("--name", default="unruly", help="the `model` of responses")
    flag("--key", help="demand this bearer token")
    flag("--start-delay", type=float, default=0, help="seconds before it listens")
    flag("--ready-delay", type=float, default=0, help="seconds of 503 from /health after that")
    flag("--never-ready", action="store_true", help="503 from /health for ever")
    flag("--crash-at-start", type=int, metavar="CODE", help="exit at once")
    flag("--last-words", default="unruly: giving up", help="printed before a crash")
    flag("--deaf", action="store_true", help="ignore SIGTERM")
    flag("--term-delay", type=float, default=0, help="seconds from SIGTERM to the exit")
    flag("--children", type=int, default=0, help="helpers that ignore SIGTERM and do nothing")
    flag("--allocate", type=int, default=0, help="bytes held from the start")
    flag("--leak", type=int, default=0, help="bytes lost in each request")
    flag("--serial", action="store_true", help="one request at a time, the others wait")
    # The rest can be given per request, too.
    flag("--chunks", type=int, default=5, help="tokens of an answer")
    flag("--chunk-bytes", type=int, default=0, help="pad each token to so many bytes")
    flag("--chunk-delay", type=float, default=0, help="seconds before each token but the first")
    flag("--first-delay", type=float, default=0, help="seconds before the first token")
    flag("--header-delay", type=float, default=0, help="seconds before the response's headers")
    flag("--babble", type=int, default=0, help="bytes printed in each request, into the log")
    flag("--crash-after", type=int, help="exit after so many tokens")
    flag("--crash-code", type=int, default=42)
    flag("--cut-after", type=int, help="close the connection after so many tokens, uncleanly")
    flag("--silent", action="store_true", help="never answer completions")
    flag("--hang", action="store_true", help="stop after the first token, say nothing more")
    flag("--close-delimited", action="store_true", help="end responses by closing, without length")
    flag("--status", type=int, default=200, help="answer completions with this status")
    return parser.parse_args()


class GoneError(Exception):
    """The client left."""


class Engine:
    def __init__(self, options):
        self.options = options
        self.began = time.monotonic()
        self.lock = threading.Lock()
        self.turn = threading.Lock()
        self.leaked = [bytearray(os.urandom(1)) * options.allocate]
        self.stats = {"requests": 0, "in_flight": 0, "peak": 0, "cancelled": 0, "connections": 0}

    def note_work(self):
        """The first time: how long nobody noticed that it was ready."""
        ready_s = self.began + self.options.ready_delay
        self.stats.setdefault("unused_s", time.monotonic() - ready_s)

    def count(self, **changes):
        with self.lock:
            for name, change in changes.items():
                self.stats[name] += change
            self.stats["peak"] = max(self.stats["peak"], self.stats["in_flight"])

    def serve(self, listener):
        while True:
            connection, _ = listener.accept()
            if connection.family == socket.AF_INET:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.count(connections=1)
            threading.Thread(target=self.converse, args=(connection,), daemon=True).start()

    def converse(self, connection):
        reader = connection.makefile("rb")
        try:
            while self.answer(connection, reader):
                pass
        except (OSError, GoneError, ValueError):
            pass
        finally:
            reader.close()
            connection.close()

    def answer(self, connection, reader):
        """Serve one request; whether the connection may carry another."""
        line = reader.readline(65536).decode("latin-1").split()
        if len(line) != 3:
            return False
        method, target, version = line
        headers = {}
        while (field := reader.readline(65536)) not in (b"\r\n", b"\n", b""):
            name, _, value = field.decode("latin-1").partition(":")
            headers[name.strip().lower()] = value.strip()
        if headers.get("expect", "").lower() == "100-continue":
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = read_body(reader, headers)
        reply = Reply(connection, headers.get("connection", "").lower() == "close")
        if version != "HTTP/1.1":
            reply.close = True
        self.count(requests=1, in_flight=1)
        try:
            self.route(method, target, headers, body, reply)
        except (GoneError, OSError):
            self.count(cancelled=1)
            raise
        finally:
            self.count(in_flight=-1)
        return not reply.close

    def route(self, method, target, headers, body, reply):
        options = self.options
        path = target.partition("?")[0]
        if options.key and headers.get("authorization") != f"Bearer {options.key}":
            reply.json({"error": {"message": "wrong key", "code": "unauthorized"}}, 401)
        elif path == "/health":
            waiting = options.never_ready or time.monotonic() < self.began + options.ready_delay
            reply.json({"status": "loading" if waiting else "ok"}, 503 if waiting else 200)
        elif path == "/v1/models":
            reply.json({"object": "list", "data": [{"id": options.name, "object": "model"}]})
        elif path == "/stats":
            reply.json({**self.stats, "pid": os.getpid()})
        elif path == "/echo":
            text = body.decode("latin-1")
            reply.json({"method": method, "path": target, "headers": headers, "body": text})
        elif path == "/v1/embeddings":
            reply.json({"object": "list", "data": [{"index": 0, "embedding": [0.0, 1.0]}]})
        elif method == "POST" and path.endswith("/completions"):
            if options.serial:
                with self.turn:
                    self.complete(body, reply, chat="chat" in path)
            else:
                self.complete(body, reply, chat="chat" in path)
        else:
            reply.json({"error": {"message": "no such path", "code": "not_found"}}, 404)

    def complete(self, body, reply, *, chat):
        self.note_work()
        request = json.loads(body or b"{}")
        faults = argparse.Namespace(**{**vars(self.options), **request.get("unruly", {})})
        if self.options.leak:
            self.leaked.append(bytearray(os.urandom(1)) * self.options.leak)
        if faults.babble:
            say("blah " * (faults.babble // 5))
        if faults.silent:
            reply.wait(3600 * 24)
        reply.wait(faults.header_delay)
        if faults.status != 200:
            reply.json({"error": {"message": "unruly", "code": "unruly"}}, faults.status)
            return
        count = min(faults.chunks, request.get("max_tokens") or faults.chunks)
        words = [f"w{n} ".ljust(faults.chunk_bytes, ".") for n in range(count)]
        stream = bool(request.get("stream"))
        reply.begin("text/event-stream" if stream else "application/json", faults.close_delimited)
        kind = ("chat.completion" if chat else "text_completion") + (".chunk" if stream else "")
        base = {"id": "cmpl-1", "object": kind, "created": 1, "model": self.options.name}
        for n, word in enumerate(words):
            reply.wait(faults.first_delay if n == 0 else faults.chunk_delay)
            if faults.crash_after == n:
                crash(self.options, faults.crash_code)
            if faults.cut_after == n:
                raise GoneError
            if faults.hang and n == 1:
                reply.wait(3600 * 24)
            if stream:
                part = {"delta": {"content": word}} if chat else {"text": word}
                reply.event({**base, "choices": [{"index": 0, "finish_reason": None, **part}]})
        if faults.crash_after is not None and faults.crash_after >= count:
            crash(self.options, faults.crash_code)
        usage = {"prompt_tokens": 3, "completion_tokens": count, "total_tokens": 3 + count}
        done = {"index": 0, "finish_reason": "stop"}
        if stream:
            reply.event({**base, "choices": [{**done, "delta": {}}]})
            if (request.get("stream_options") or {}).get("include_usage"):
                reply.event({**base, "choices": [], "usage": usage})
            reply.write(b"data: [DONE]\n\n")
        else:
            text = "".join(words)
            part = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
            whole = {**base, "choices": [{**done, **part}], "usage": usage}
            reply.write(json.dumps(whole).encode())
        reply.end()


class Reply:
    """Writes one response; the body in chunks, or until the connection closes."""

    def __init__(self, connection, close):
        self.connection = connection
        self.close = close
        self.chunked = True

    def json(self, content, status=200):
        data = json.dumps(content).encode()
        end = b"Connection: close\r\n" if self.close else b""
        head = b"HTTP/1.1 %d -\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%b\r\n"
        self.connection.sendall(head % (status, len(data), end) + data)

    def begin(self, content_type, close_delimited):
        self.chunked = not close_delimited
        self.close = self.close or close_delimited
        framing = "Transfer-Encoding: chunked" if self.chunked else "Connection: close"
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n{framing}\r\n\r\n"
        self.connection.sendall(head.encode())

    def event(self, content):
        self.write(b"data: " + json.dumps(content).encode() + b"\n\n")

    def write(self, data):
        frame = b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data
        self.connection.sendall(frame)

    def end(self):
        if self.chunked:
            self.connection.sendall(b"0\r\n\r\n")

    def wait(self, seconds):
        """Pass *seconds*, unless the client leaves first."""
        if seconds > 0 and select.select([self.connection], [], [], seconds)[0]:
            if not self.connection.recv(1, socket.MSG_PEEK):
                raise GoneError
            time.sleep(seconds)


def read_body(reader, headers):
    if "chunked" in headers.get("transfer-encoding", ""):
        body = b""
        while size := int(reader.readline().split(b";")[0], 16):
            body += reader.read(size)
            reader.readline()
        reader.readline()
        return body
    return reader.read(int(headers.get("content-length", 0)))


def crash(options, code):
    say(options.last_words, file=sys.stderr)
    os._exit(code)


def main():
    options = flags()
    if options.crash_at_start is not None:
        crash(options, options.crash_at_start)

    def on_term(_number, _frame):
        if not options.deaf:
            time.sleep(options.term_delay)
            os._exit(0)

    signal.signal(signal.SIGTERM, on_term)
    helper = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()"
    for _ in range(options.children):
        argv = [sys.executable, "-S", "-c", helper]
        say("helper", os.posix_spawn(sys.executable, argv, os.environ))
    engine = Engine(options)
    time.sleep(options.start_delay)
    if options.socket:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(options.socket)
    else:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", options.port))
        say("listening on", listener.getsockname()[1])
    listener.listen(512)
    threading.Thread(target=engine.serve, args=(listener,), daemon=True).start()
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
