"""Requests that two parties could read differently, and what becomes of each.

`REFUSED`: the status it gets; the connection is closed behind it and the engine sees nothing.
`LAST`: requests behind which nothing is served.
`PASSED`: what the engine gets, as exactly these requests (method, target, body), and nothing else.
What `tests/proxy/test_request_reader.py` has in `AMBIGUOUS` and `BAD_CHUNKS` belongs here, too.
"""

X = b"POST /x HTTP/1.1\r\nHost: localhost\r\n"
GET = b"GET /x HTTP/1.1\r\nHost: localhost\r\n"
TE = X + b"Transfer-Encoding: chunked\r\n\r\n"
END = b"2\r\nok\r\n0\r\n\r\n"
OK = (b"POST", b"/x", b"ok")
GOT = (b"GET", b"/x", b"")


def coded(value, body=END):
    """A chunked body under a coding that is written as *value*."""
    return X + b"Transfer-Encoding:" + value + b"\r\n\r\n" + body


def sized(value, body=b"ok"):
    """A body of two bytes under a length that is written as *value*."""
    return X + b"Content-Length:" + value + b"\r\n\r\n" + body


REFUSED = {
    # --- lengths
    "two lengths in different case": (
        400,
        X + b"Content-Length: 2\r\ncontent-LENGTH: 2\r\n\r\nok",
    ),
    "zero and a length": (400, X + b"Content-Length: 0\r\nContent-Length: 2\r\n\r\nok"),
    "a length and zero": (400, X + b"Content-Length: 2\r\nContent-Length: 0\r\n\r\nok"),
    "length with a list's comma": (400, sized(b" 2,")),
    "length with a comma before": (400, sized(b" ,2")),
    "length with a parameter": (400, sized(b" 2;a=b")),
    "length with a space inside": (400, sized(b" 2 2")),
    "length with a tab inside": (400, sized(b" 2\t2")),
    "length in quotes": (400, sized(b' "2"')),
    "length with a fraction": (400, sized(b" 2.0")),
    "length with an exponent": (400, sized(b" 2e0")),
    "length in octal": (400, sized(b" 0o2")),
    "length behind a vertical tab": (400, sized(b" \x0b2")),
    "length behind a form feed": (400, sized(b"\x0c2")),
    "length behind a no-break space": (400, sized(b"\xa02")),
    "length before a next-line": (400, sized(b" 2\x85")),
    "length in full-width digits": (400, sized(b" \xef\xbc\x92")),
    "length in Arabic digits": (400, sized(b" \xd9\xa2")),
    "length before a NUL": (400, sized(b" 2\x00")),
    "length folded": (400, sized(b"\r\n 2")),
    "length folded behind a digit": (400, sized(b" 2\r\n 2")),
    "length folded with a tab": (400, sized(b"\r\n\t2")),
    "length that wraps 32 bits": (413, sized(b" 4294967298")),
    "length that wraps 64 bits": (400, sized(b" 18446744073709551618")),
    "length of GET in two": (400, GET + b"Content-Length: 0\r\nContent-Length: 9\r\n\r\n"),
    "length and coding of GET": (
        400,
        GET + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    "length and a coding that says identity": (
        400,
        X + b"Content-Length: 2\r\nTransfer-Encoding: identity\r\n\r\nok",
    ),
    "length and a coding that nobody knows": (
        400,
        X + b"Content-Length: 2\r\nTransfer-Encoding: cow\r\n\r\nok",
    ),
    "length and an empty coding": (
        400,
        X + b"Content-Length: 2\r\nTransfer-Encoding:\r\n\r\nok",
    ),
    # --- codings
    "coding with a parameter": (400, coded(b" chunked;q=1")),
    "coding before a comma": (400, coded(b" chunked,")),
    "coding behind a comma": (501, coded(b" ,chunked")),
    "identity, chunked": (501, coded(b" identity, chunked")),
    "chunked, identity": (400, coded(b" chunked, identity")),
    "chunked twice in two headers": (
        400,
        X + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + END,
    ),
    "chunked in two headers of different case": (
        400,
        X + b"transfer-encoding: chunked\r\nTRANSFER-ENCODING: chunked\r\n\r\n" + END,
    ),
    "space before the colon of the coding": (
        400,
        X + b"Transfer-Encoding : chunked\r\n\r\n" + END,
    ),
    "tab before the colon of the coding": (400, X + b"Transfer-Encoding\t: chunked\r\n\r\n" + END),
    "space before the coding's name": (400, X + b" Transfer-Encoding: chunked\r\n\r\n" + END),
    "NUL within the coding's name": (400, X + b"Transfer-\x00Encoding: chunked\r\n\r\n" + END),
    "NUL behind the coding": (400, coded(b" chunked\x00")),
    "form feed before the coding": (400, coded(b"\x0cchunked")),
    "no-break space before the coding": (400, coded(b" \xa0chunked")),
    "next-line behind the coding": (400, coded(b" chunked\x85")),
    "dotless coding": (400, coded(b" chun\xc4\xb7ed")),
    "coding in single quotes": (400, coded(b" 'chunked'")),
    "coding in brackets": (400, coded(b" [chunked]")),
    "coding behind a colon": (400, coded(b": chunked")),
    "two codings without a comma": (400, coded(b" chunked chunked")),
    "coding behind a bare line feed": (400, X + b"A: b\nTransfer-Encoding: chunked\r\n\r\n" + END),
    "coding behind a bare carriage return": (
        400,
        X + b"A: b\rTransfer-Encoding: chunked\r\n\r\n" + END,
    ),
    "coding of HTTP/1.0 with keep-alive": (
        400,
        b"POST /x HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n" + END,
    ),
    "coding before a tab": (400, coded(b" chunked \t")),
    "compressed and chunked": (501, coded(b" gzip, chunked")),
    # --- chunks
    "size with a trailing tab": (400, TE + b"2\t\r\nok\r\n0\r\n\r\n"),
    "size of 17 digits": (400, TE + b"00000000000000002\r\nok\r\n0\r\n\r\n"),
    "size in full-width digits": (400, TE + b"\xef\xbc\x92\r\nok\r\n0\r\n\r\n"),
    "size behind a NUL": (400, TE + b"\x002\r\nok\r\n0\r\n\r\n"),
    "size with an h": (400, TE + b"2h\r\nok\r\n0\r\n\r\n"),
    "size with a dot": (400, TE + b"2.0\r\nok\r\n0\r\n\r\n"),
    "two sizes": (400, TE + b"2 2\r\nok\r\n0\r\n\r\n"),
    "two sizes with a comma": (400, TE + b"2,2\r\nok\r\n0\r\n\r\n"),
    "size before a bare carriage return": (400, TE + b"2\rok\r\n0\r\n\r\n"),
    "size before two carriage returns": (400, TE + b"2\r\r\nok\r\n0\r\n\r\n"),
    "minus zero": (400, TE + b"-0\r\n\r\n"),
    "NUL in an extension": (400, TE + b"2;a=\x00\r\nok\r\n0\r\n\r\n"),
    "bare line feed in an extension": (400, TE + b"2;\nok\r\n0\r\n\r\n"),
    "bare carriage return in an extension": (400, TE + b"2;a\rb\r\nok\r\n0\r\n\r\n"),
    "data where a size should be": (400, TE + b"2\r\nok\r\nok\r\n0\r\n\r\n"),
    "two line ends behind a chunk": (400, TE + b"2\r\nok\r\n\r\n0\r\n\r\n"),
    "fewer bytes than said": (400, TE + b"4\r\nok\r\n0\r\n\r\n"),
    "last chunk before a bare line feed": (400, TE + b"2\r\nok\r\n0\r\n\n"),
    "request behind the last chunk's size": (400, TE + b"0\r\n" + GET),
    "trailer with a fold": (400, TE + b"0\r\nA: b\r\n c\r\n\r\n"),
    "trailer with a NUL": (400, TE + b"0\r\nA: \x00\r\n\r\n"),
    "trailer with a bare carriage return": (400, TE + b"0\r\nA: b\rc\r\n\r\n"),
    "trailer with a bare line feed": (400, TE + b"0\r\nA: b\nC: d\r\n\r\n"),
    "trailer without a name": (400, TE + b"0\r\n: b\r\n\r\n"),
    "trailer with a space in its name": (400, TE + b"0\r\nA b: c\r\n\r\n"),
    "trailer that is a coding": (400, TE + b"0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "trailers without end": (400, TE + b"0\r\n" + b"A: b\r\n" * 20_000),
    "extensions without end": (400, TE + (b"1;" + b"a" * 4000 + b"\r\nx\r\n") * 40),
    # --- request line
    "nothing but a method": (400, b"GET\r\n\r\n"),
    "no method": (400, b" /x HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "method of 5,000 letters": (400, b"A" * 5000 + b" /x HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "method with a NUL": (400, b"GE\x00T /x HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "method with a carriage return": (400, b"GE\rT /x HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "method that is a header": (400, b"GET:/x HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "method in half lower case": (400, b"Get /x HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "method of WebDAV": (501, b"PROPFIND /x HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "method of caches": (501, b"PURGE /x HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "method of RTSP": (400, b"DESCRIBE /x HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "tunnel": (501, b"CONNECT localhost:22 HTTP/1.1\r\nHost: localhost:22\r\n\r\nSSH-2.0"),
    "tunnel to a path": (501, b"CONNECT /x HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "two versions": (400, b"GET /x HTTP/1.1 HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "version with a NUL": (400, b"GET /x HTTP/1.1\x00\r\nHost: localhost\r\n\r\n"),
    "version with a letter": (400, b"GET /x HTTP/1.1a\r\nHost: localhost\r\n\r\n"),
    "version 1.01": (400, b"GET /x HTTP/1.01\r\nHost: localhost\r\n\r\n"),
    "version 1": (400, b"GET /x HTTP/1\r\nHost: localhost\r\n\r\n"),
    "version 9.9": (501, b"GET /x HTTP/9.9\r\nHost: localhost\r\n\r\n"),
    "version HTTPS": (400, b"GET /x HTTPS/1.1\r\nHost: localhost\r\n\r\n"),
    "bare line feed behind the version": (400, b"GET /x HTTP/1.1\nHost: localhost\r\n\r\n"),
    "bare carriage return behind the version": (400, b"GET /x HTTP/1.1\rHost: localhost\r\n\r\n"),
    "tab before the version": (400, b"GET /x\tHTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "vertical tab before the version": (400, b"GET /x\x0bHTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "target of 70,000 bytes": (
        431,
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ),
    "target with a DEL": (400, b"GET /\x7f HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "target with a carriage return": (400, b"GET /\r HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "target in UTF-8": (400, "GET /ä HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()),
    "target that climbs": (400, b"GET /v1/../x HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "target that climbs at its end": (400, b"GET /v1/.. HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "target that stays": (400, b"GET /v1/./x HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "target that climbs in disguise": (
        400,
        b"GET /v1/%2e%2E/x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ),
    "target that climbs behind a coded slash": (
        400,
        b"GET /v1%2f..%2fx HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ),
    "target that climbs with backslashes": (
        400,
        b"GET /v1\\..\\x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ),
    "absolute target that climbs": (
        400,
        b"GET http://localhost/../x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ),
    "target with a coded NUL": (400, b"GET /x%00 HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "target with a coded line feed": (400, b"GET /x%0ay HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "target with half a code": (400, b"GET /x%2 HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "target with a code of no digits": (400, b"GET /x%zz HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "target of another scheme": (400, b"GET file:///etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n"),
    "target that is an authority": (400, b"GET localhost:8081 HTTP/1.1\r\nHost: a\r\n\r\n"),
    "HTTP/2": (501, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"),
    "an answer": (400, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    "SSH": (400, b"SSH-2.0-OpenSSH_9.9\r\n\r\n"),
    "SOCKS": (400, b"\x05\x01\x00"),
    "a proxy's preamble": (400, b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + GET + b"\r\n"),
    "JSON": (400, b'{"jsonrpc":"2.0"}\r\n\r\n'),
    # --- headers
    "two hosts in different case": (400, GET + b"HOST: localhost\r\n\r\n"),
    "two hosts, one of them evil": (400, GET + b"Host: evil.example\r\n\r\n"),
    "space before the host's colon": (400, b"GET /x HTTP/1.1\r\nHost : localhost\r\n\r\n"),
    "folded host": (400, b"GET /x HTTP/1.1\r\nHost:\r\n localhost\r\n\r\n"),
    "host with a NUL": (400, b"GET /x HTTP/1.1\r\nHost: localhost\x00\r\n\r\n"),
    "two content types": (
        400,
        X + b"Content-Type: multipart/form-data\r\nContent-Type: application/json\r\n"
        b"Content-Length: 2\r\n\r\nok",
    ),
    "two content codings": (
        400,
        X + b"Content-Encoding: identity\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nok",
    ),
    "header with a DEL": (400, GET + b"A: \x7f\r\n\r\n"),
    "header with a backspace": (400, GET + b"A: \x08\r\n\r\n"),
    "header with an escape": (400, GET + b"A: \x1b[31m\r\n\r\n"),
    "name in UTF-8": (400, GET + "ä: b\r\n\r\n".encode()),
    "name with a bracket": (400, GET + b"A[0]: b\r\n\r\n"),
    "name with a quote": (400, GET + b'"A": b\r\n\r\n'),
    "name with a slash": (400, GET + b"A/B: c\r\n\r\n"),
    "name in braces": (400, GET + b"{A}: b\r\n\r\n"),
    "line feed before the headers' end": (400, GET + b"A: b\r\n\nC: d\r\n\r\n"),
    "carriage return before the headers' end": (400, GET + b"A: b\r\n\rC: d\r\n\r\n"),
    "300 headers": (431, GET + b"A: b\r\n" * 300 + b"\r\n"),
    "header of 70,000 bytes": (431, GET + b"A: " + b"b" * 70_000 + b"\r\n\r\n"),
    "name of 70,000 bytes": (431, GET + b"a" * 70_000 + b": b\r\n\r\n"),
}

LAST = {
    "close": GET + b"Connection: close\r\n\r\n",
    "close among others": GET + b"Connection: keep-alive, close\r\n\r\n",
    "close in another header": GET + b"Connection: a\r\nConnection: close\r\n\r\n",
    "HTTP/1.0": b"GET /x HTTP/1.0\r\n\r\n",
    "HTTP/1.0 that keeps and closes": b"GET /x HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",
}

PASSED = {
    # --- lengths and codings that everybody reads alike
    "length with zeros before": (sized(b" 0002"), [OK]),
    "length behind a tab": (sized(b"\t2"), [OK]),
    "length before spaces": (sized(b" 2  \t"), [OK]),
    "length without a space": (sized(b"2"), [OK]),
    "no length, no body": (X + b"\r\n", [(b"POST", b"/x", b"")]),
    "length of GET": (GET + b"Content-Length: 2\r\n\r\nok", [(b"GET", b"/x", b"ok")]),
    "chunks of GET": (
        GET + b"Transfer-Encoding: chunked\r\n\r\n" + END,
        [(b"GET", b"/x", b"ok")],
    ),
    "coding in capitals": (coded(b" CHUNKED"), [OK]),
    "coding behind a tab": (coded(b"\tchunked"), [OK]),
    "coding before a space": (coded(b" chunked "), [OK]),
    "coding of TE only": (GET + b"TE: chunked\r\n\r\n", [GOT]),
    "coding that connection names": (
        X + b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n" + END,
        [OK],
    ),
    "length that connection names": (
        X + b"Connection: content-length\r\nContent-Length: 2\r\n\r\nok",
        [OK],
    ),
    "host that connection names": (GET + b"Connection: host\r\n\r\n", [GOT]),
    "size in capitals": (TE + b"A\r\n0123456789\r\n0\r\n\r\n", [(b"POST", b"/x", b"0123456789")]),
    "size with zeros before": (TE + b"0002\r\nok\r\n000\r\n\r\n", [OK]),
    "extension": (TE + b"2;a\r\nok\r\n0\r\n\r\n", [OK]),
    "extension with a value": (TE + b"2;a=b\r\nok\r\n0;c=d\r\n\r\n", [OK]),
    "extension in quotes": (TE + b'2;a="b c"\r\nok\r\n0\r\n\r\n', [OK]),
    "extension that looks like a size": (TE + b"2;7\r\nok\r\n0\r\n\r\n", [OK]),
    "chunk that looks like the end": (
        TE + b"5\r\n0\r\n\r\n\r\n0\r\n\r\n",
        [(*OK[:2], b"0\r\n\r\n")],
    ),
    "chunk that is a request": (
        TE + b"%x\r\n%b\r\n\r\n0\r\n\r\n" % (len(GET) + 2, GET),
        [(b"POST", b"/x", GET + b"\r\n")],
    ),
    "body that is a request": (
        X + b"Content-Length: %d\r\n\r\n%b\r\n" % (len(GET) + 2, GET),
        [(b"POST", b"/x", GET + b"\r\n")],
    ),
    "trailers": (TE + b"2\r\nok\r\n0\r\nA: b\r\nContent-MD5: c\r\n\r\n", [OK]),
    # --- names that only some would take for others
    "length with an underscore": (
        X + b"Content_Length: 9\r\nContent-Length: 2\r\n\r\nok",
        [OK],
    ),
    "coding with an underscore": (X + b"Transfer_Encoding: chunked\r\n\r\n", [(*OK[:2], b"")]),
    # --- targets
    "absolute target": (b"GET http://localhost/x HTTP/1.1\r\nHost: localhost\r\n\r\n", [GOT]),
    "absolute target in capitals": (b"GET HTTP://LOCALHOST/x HTTP/1.1\r\nHost: a\r\n\r\n", [GOT]),
    "absolute target beside an evil host": (
        b"GET http://localhost/x HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        [GOT],
    ),
    "coded target": (
        b"GET /%78?a=%62 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        [(b"GET", b"/%78?a=%62", b"")],
    ),
    "double slash": (b"GET //x HTTP/1.1\r\nHost: localhost\r\n\r\n", [(b"GET", b"//x", b"")]),
    "dots that are no segment": (
        b"GET /..x/y..?a=/../ HTTP/1.1\r\nHost: localhost\r\n\r\n",
        [(b"GET", b"/..x/y..?a=/../", b"")],
    ),
    # --- offers
    "upgrade to h2c": (
        X + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\nContent-Length: 2\r\n\r\nok",
        [OK],
    ),
    "upgrade to h2c, chunked": (
        X + b"Connection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n" + END,
        [OK],
    ),
    "upgrade to a web socket": (
        GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n",
        [GOT],
    ),
    "upgrade and a request behind it": (
        GET + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n" + sized(b" 2"),
        [GOT, OK],
    ),
    "expectation that is not ours": (X + b"Expect: 200-ok\r\nContent-Length: 2\r\n\r\nok", [OK]),
    "expectation without a body": (GET + b"Expect: 100-continue\r\n\r\n", [GOT]),
    # --- bytes
    "8-bit value": (GET + b"A: \xff\xfe\r\n\r\n", [GOT]),
    "tab in a value": (GET + b"A: b\tc\r\n\r\n", [GOT]),
    "empty value": (GET + b"A:\r\n\r\n", [GOT]),
    "empty line before": (b"\r\n" + GET + b"\r\n", [GOT]),
    # --- one behind the other
    "two at once": (sized(b" 2") + GET + b"\r\n", [OK, GOT]),
    "three of each kind": (sized(b" 2") + TE + END + GET + b"\r\n", [OK, OK, GOT]),
    "chunked twice": (TE + END + TE + END, [OK, OK]),
    "empty line between": (sized(b" 2") + b"\r\n" + GET + b"\r\n", [OK, GOT]),
    # --- what never becomes one
    "body that is too short": (sized(b" 3"), []),
    "no last chunk": (TE + b"2\r\nok\r\n", []),
    "no end of the trailers": (TE + b"2\r\nok\r\n0\r\n", []),
    "no end of the headers": (GET, []),
    "HTTP/0.9": (b"GET /x\r\n", []),
}
