"""The head of a request as hosts get it. No socket."""

from llmd.proxy.gate import Upstream
from llmd.proxy.head import Head
from llmd.proxy.outgoing import request_head
from llmd.proxy.request import Request


def test_head_that_was_sent_to_one_host_is_written_anew_for_another():
    head = Head(b"POST", b"/v1/chat/completions")
    near = Upstream(path="/run/code.sock", headers={"Authorization": "Bearer secret"})
    far = Upstream(host="example.net", port=443, tls=True, prefix="/api/v4")
    first = request_head(Request(head, 2, b"{}"), near)
    again = request_head(Request(head, 3, b"{ }"), near)
    other = request_head(Request(head, 2, b"{}"), far)

    assert again == first.replace(b"Content-Length: 2", b"Content-Length: 3")
    assert other.startswith(b"POST /api/v4/chat/completions HTTP/1.1\r\nHost: example.net\r\n")
    assert b"secret" not in other
    assert request_head(Request(head, 2, b"{}"), near) == first
