"""Answers of an engine that could be read in two ways, or that are broken, and what a client gets.

`WHOLE`: status and body. `BROKEN`: a 502 that says so. `CUT`: its beginning, and no regular end.
The connection to the engine serves another request only where nothing is left to be misread.
"""

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
TWO = b"Content-Length: 2\r\n\r\nok"
CODED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
END = b"2\r\nok\r\n0\r\n\r\n"

WHOLE = {
    "length": (HEAD + TWO, 200, b"ok"),
    "chunks": (CODED + END, 200, b"ok"),
    "chunks with extensions and trailers": (
        CODED + b"2;a=b\r\nok\r\n0;c\r\nA: b\r\n\r\n",
        200,
        b"ok",
    ),
    "chunks of HTTP/1.0": (b"HTTP/1.0" + CODED[8:] + END, 200, b"ok"),
    "nothing at all": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "nothing, but a length": (b"HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n", 204, b""),
    "nothing, but a body": (b"HTTP/1.1 204 No Content\r\n" + TWO, 204, b""),
    "nothing, but chunks": (
        b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n" + END,
        204,
        b"",
    ),
    "not modified, with a length": (b"HTTP/1.1 304 Not\r\nContent-Length: 9\r\n\r\n", 304, b""),
    "not modified, with an answer as its body": (
        b"HTTP/1.1 304 Not\r\nContent-Length: %d\r\n\r\n%b" % (len(HEAD + TWO), HEAD + TWO),
        304,
        b"",
    ),
    "interim first": (b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + TWO, 200, b"ok"),
    "hints first": (
        b"HTTP/1.1 103 Early\r\nContent-Length: 9\r\nLink: </x>\r\n\r\n" + HEAD + TWO,
        200,
        b"ok",
    ),
    "ten interims first": (b"HTTP/1.1 102 P\r\n\r\n" * 10 + HEAD + TWO, 200, b"ok"),
    "two answers": (HEAD + TWO + HEAD + b"Content-Length: 3\r\n\r\nbad", 200, b"ok"),
    "two answers, the second an error": (
        HEAD + TWO + b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        200,
        b"ok",
    ),
    "an interim behind the end": (HEAD + TWO + b"HTTP/1.1 100 Continue\r\n\r\n", 200, b"ok"),
    "bytes behind a length": (HEAD + TWO + b"more", 200, b"ok"),
    "bytes behind the last chunk": (CODED + END + b"more", 200, b"ok"),
    "a NUL behind the end": (HEAD + TWO + b"\x00", 200, b"ok"),
    "half an answer behind the end": (HEAD + TWO + HEAD, 200, b"ok"),
    "no reason": (b"HTTP/1.1 200\r\n" + TWO, 200, b"ok"),
    "8-bit reason": (b"HTTP/1.1 200 \xff\r\n" + TWO, 200, b"ok"),
    "odd status": (b"HTTP/1.1 299 Well\r\n" + TWO, 299, b"ok"),
    "upgrade that was not asked for": (
        HEAD + b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + TWO,
        200,
        b"ok",
    ),
    "empty line before": (b"\r\n" + HEAD + TWO, 200, b"ok"),
}

BROKEN = {
    "length and coding": HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n" + END,
    "coding and length": HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n" + END,
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "two equal lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "list of lengths": HEAD + b"Content-Length: 2, 2\r\n\r\nok",
    "length with a plus": HEAD + b"Content-Length: +2\r\n\r\nok",
    "length with a minus": HEAD + b"Content-Length: -2\r\n\r\nok",
    "length in hexadecimal": HEAD + b"Content-Length: 0x2\r\n\r\nok",
    "length with an underscore": HEAD + b"Content-Length: 1_0\r\n\r\n0123456789",
    "empty length": HEAD + b"Content-Length:\r\n\r\nok",
    "endless length": HEAD + b"Content-Length: 99999999999999999999999\r\n\r\nok",
    "two codings": HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n" + END,
    "chunked twice": HEAD
    + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"
    + END,
    "identity and chunked": HEAD
    + b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n"
    + END,
    "chunked, identity": HEAD + b"Transfer-Encoding: chunked, identity\r\n\r\n" + END,
    "identity": HEAD + b"Transfer-Encoding: identity\r\n\r\nok",
    "compressed": HEAD + b"Transfer-Encoding: gzip\r\n\r\nok",
    "vertical tab before the coding": HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n" + END,
    "space before the colon": HEAD + b"Content-Length : 2\r\n\r\nok",
    "folded header": HEAD + b"A: b\r\n c\r\n" + TWO,
    "folded coding": HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n" + END,
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "bare line feed in a header": HEAD + b"A: b\n" + TWO,
    "bare carriage return in a header": HEAD + b"A: b\rC: d\r\n" + TWO,
    "NUL in a header": HEAD + b"A: \x00\r\n" + TWO,
    "control character in a header": HEAD + b"A: \x01\r\n" + TWO,
    "8-bit name": HEAD + b"\xff: a\r\n" + TWO,
    "no name": HEAD + b": a\r\n" + TWO,
    "no colon": HEAD + b"A\r\n" + TWO,
    "status 0": b"HTTP/1.1 000 OK\r\n" + TWO,
    "status 99": b"HTTP/1.1 099 OK\r\n" + TWO,
    "status of two digits": b"HTTP/1.1 20 OK\r\n" + TWO,
    "status of four digits": b"HTTP/1.1 2000 OK\r\n" + TWO,
    "status with a minus": b"HTTP/1.1 -20 OK\r\n" + TWO,
    "other protocol": b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    "HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    "HTTP/3.0": b"HTTP/3.0 200 OK\r\n" + TWO,
    "a request": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "JSON": b'{"ok":true}',
    "headers without end": HEAD + b"A: b\r\n" * 60_000,
    "header without end": HEAD + b"A: " + b"b" * 400_000,
    "interims without end": b"HTTP/1.1 100 Continue\r\n\r\n" * 20_000,
}

CUT = {
    "size with a space": CODED + b"2 \r\nok\r\n0\r\n\r\n",
    "size with a prefix": CODED + b"0x2\r\nok\r\n0\r\n\r\n",
    "size with a minus": CODED + b"-2\r\nok\r\n0\r\n\r\n",
    "overflowing size": CODED + b"ffffffffffffffff2\r\nok\r\n0\r\n\r\n",
    "bare line feed behind a size": CODED + b"2\nok\r\n0\r\n\r\n",
    "bare line feed behind a chunk": CODED + b"2\r\nok\n0\r\n\r\n",
    "more than the size says": CODED + b"2\r\nokk\r\n0\r\n\r\n",
    "no size": CODED + b"\r\nok\r\n0\r\n\r\n",
    "bare line feed at the end": CODED + b"2\r\nok\r\n0\r\n\n",
    "length as a trailer": CODED + b"2\r\nok\r\n0\r\nContent-Length: 9\r\n\r\n",
    "folded trailer": CODED + b"2\r\nok\r\n0\r\nA: b\r\n c\r\n\r\n",
    "NUL in a trailer": CODED + b"2\r\nok\r\n0\r\nA: \x00\r\n\r\n",
    "trailers without end": CODED + b"2\r\nok\r\n0\r\n" + b"A: b\r\n" * 200_000,
    "trailer without end": CODED + b"2\r\nok\r\n0\r\nA: " + b"b" * 900_000,
    "extension without end": CODED + b"2;" + b"a" * 700_000,
}
