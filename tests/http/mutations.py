"""Requests and answers by their grammar, with something wrong in some of their parts."""

from hypothesis import strategies as st


ODD_BYTES = b"\x00\x01\t\n\x0b\x0c\r \"#%&',-./019:;=?@A[\\]_{|}~\x7f\x80\x85\xa0\xff"

_odd = st.integers(0, 9).map(lambda n: n == 0)
"""One part in ten."""


def mostly(good, bad):
    """One of *good*, and now and then one of *bad*."""
    return _odd.flatmap(lambda odd: st.sampled_from(bad if odd else good))


line_ends = mostly([b"\r\n"], [b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n ", b"\r\n\t", b"\x00\r\n"])
colons = mostly(
    [b": ", b":"], [b" :", b":\t", b":\x0b", b"\t: ", b": \x0c", b"::", b"", b"=", b":\r\n "]
)
versions = mostly(
    [b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0"],
    [
        b"HTTP/1.2",
        b"HTTP/2.0",
        b"HTTP/0.9",
        b"http/1.1",
        b"HTTP/1.1 ",
        b"HTTP/1",
        b"HTTP/01.1",
        b"",
    ],
)
methods = mostly(
    [b"GET", b"POST", b"PUT", b"DELETE"],
    [b"HEAD", b"OPTIONS", b"get", b"CONNECT", b"PRI", b"G T", b"", b"POST\x00", b"TRACE", b"\xff"],
)
targets = mostly(
    [b"/x", b"/v1/x?a=b", b"/x/%78"],
    [
        b"x",
        b"*",
        b"http://localhost/x",
        b"HTTP://a",
        b"/../x",
        b"/x y",
        b"/\xff",
        b"/#",
        b"",
        b"//x",
        b"/%00",
    ],
)
spaces = mostly([b" "], [b"  ", b"\t", b"\x0b", b"", b"\r\n "])
lengths = mostly(
    [b"0", b"2", b"5", b"05"],
    [b"+2", b"-1", b"0x2", b"2 ", b"2,2", b"2_0", b"", b"\x0b2", b"99999999999999999999", b"\xb2"],
)
codings = mostly(
    [b"chunked", b"Chunked"],
    [
        b"identity",
        b"chunked, chunked",
        b"gzip, chunked",
        b"chunked,",
        b"xchunked",
        b"chunked\x0b",
        b"",
        b"chunked ;a",
    ],
)
others = st.tuples(
    mostly(
        [b"Host", b"A", b"Accept", b"X-Custom", b"Content-Type"],
        [
            b"A b",
            b"\xff",
            b"",
            b"A\x00",
            b" A",
            b"Upgrade",
            b"Connection",
            b"Expect",
            b"Content_Length",
            b"TE",
        ],
    ),
    mostly(
        [b"a", b"localhost", b"", b"a, b", b"\xe4"],
        [
            b"a\x00",
            b"a\rb",
            b"a\nb",
            b"\x7f",
            b"close",
            b"upgrade",
            b"h2c",
            b"100-continue",
            b"a\x0b",
            b"content-length",
        ],
    ),
)


@st.composite
def chunked(draw):
    """A chunked body, mostly sound."""
    out = b""
    for piece in draw(st.lists(st.binary(min_size=1, max_size=6), max_size=3)):
        size = draw(
            mostly(
                [b"%x", b"%X", b"0%x"], [b"%x ", b"0x%x", b"+%x", b"%x0", b"-%x", b" %x", b"1%x"]
            )
        )
        extension = draw(
            mostly(
                [b"", b"", b";a=b"], [b" ;a", b";\x00", b";\n", b';a="\n"', b"\t", b";\xff", b";"]
            )
        )
        out += size % len(piece) + extension + draw(line_ends) + piece + draw(line_ends)
    trailer = draw(
        mostly(
            [b"", b"A: b\r\n"], [b"A\r\n", b"A : b\r\n", b" A: b\r\n", b"A: b\n", b"A: \x00\r\n"]
        )
    )
    last = draw(mostly([b"0", b"000"], [b"", b"0 ", b"-0", b"0x0", b"00x"]))
    return out + last + draw(line_ends) + trailer + draw(line_ends)


@st.composite
def framed(draw, start):
    """*start* with headers and a body that mostly fits them."""
    lines = [start]
    headers = draw(st.lists(others, max_size=2))
    body = b""
    for kind in draw(
        mostly(
            [["length"], ["coding"], []],
            [["length", "length"], ["length", "coding"], ["coding", "coding"]],
        )
    ):
        if kind == "length":
            body = draw(st.binary(max_size=8))
            size = draw(mostly([b"%d" % len(body)], [draw(lengths)]))
            headers.append(
                (draw(mostly([b"Content-Length"], [b"content-length", b"Content-length "])), size)
            )
        else:
            body = draw(chunked())
            headers.append(
                (
                    draw(
                        mostly([b"Transfer-Encoding"], [b"transfer-encoding", b"Transfer_Encoding"])
                    ),
                    draw(codings),
                )
            )
    out = b"".join(lines) + draw(line_ends)
    for name, value in draw(st.permutations(headers)):
        out += name + draw(colons) + value + draw(line_ends)
    return out + draw(line_ends) + body


@st.composite
def scratched(draw, data):
    """*data* with a byte or two more, less, or other ones."""
    for _ in range(draw(mostly([0], [1, 2]))):
        at = draw(st.integers(0, len(data)))
        odd = draw(st.sampled_from(ODD_BYTES))
        gone = draw(st.integers(0, 1))
        data = data[:at] + bytes([odd]) * draw(st.integers(0, 1)) + data[at + gone :]
    return data


request_lines = st.tuples(methods, spaces, targets, spaces, versions).map(b"".join)
hosts = mostly([b"\r\nHost: localhost"], [b"", b"\r\nHost: localhost\r\nHost: b", b"\r\nHost : b"])
one_request = st.tuples(request_lines, hosts).map(b"".join).flatmap(framed)
requests = st.lists(one_request, min_size=1, max_size=3).map(b"".join).flatmap(scratched)

status_lines = st.tuples(
    versions,
    spaces,
    mostly(
        [b"200", b"200", b"404", b"204", b"304"],
        [b"100", b"103", b"101", b"099", b"000", b"20", b"2000", b"999", b"+20"],
    ),
    mostly([b" OK", b" ", b""], [b"OK", b" \xff", b" \x00", b"  a", b"\tOK"]),
).map(b"".join)
one_answer = status_lines.flatmap(framed)
answers = st.lists(one_answer, min_size=1, max_size=2).map(b"".join).flatmap(scratched)

places = st.lists(st.floats(0, 1), max_size=6)
