"""Who may use a port: this machine's own programs, known web pages, holders of a key.

A web page can make a browser send requests to localhost, and by DNS rebinding even read the
answers. So a request must be addressed to a name that is this machine's, and one that a page
caused must come from a page that the configuration names, and bring JSON: what a browser sends
without asking first (forms, text, beacons) is no JSON.
"""

import hashlib
import hmac
from collections.abc import Iterable
from http import HTTPStatus
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from llmd.errors import ForbiddenOriginError, InvalidRequestError, UnauthorizedError
from llmd.proxy.head import Head
from llmd.proxy.reply import Reply


_MAX_REMEMBERED: Final = 256
_EXPOSED: Final = b"Access-Control-Expose-Headers: X-LLMD-Profile, X-Request-Id\r\n"
_BODIED: Final = frozenset({b"POST", b"PUT", b"PATCH"})


class MediaTypeError(InvalidRequestError):
    """A page sent something else than JSON."""

    status = HTTPStatus.UNSUPPORTED_MEDIA_TYPE


class Guard:
    """The rules of one port.

    Args:
        allowed_hosts: Names besides localhost that may stand in `Host`.
        cors_origins: Web origins that may use the port, such as `https://chat.example`; `*` is any.
        api_keys: When not empty, each request but `GET /health` must carry one.
        addresses: The literal addresses the port is bound to.
    """

    def __init__(
        self,
        *,
        allowed_hosts: Iterable[str] = (),
        cors_origins: Iterable[str] = (),
        api_keys: Iterable[str] = (),
        addresses: Iterable[str] = (),
    ) -> None:
        self._names = {"localhost"} | {name.lower().rstrip(".") for name in allowed_hosts}
        self._origins = {origin.lower().rstrip("/") for origin in cors_origins}
        # Digests: all of one length, so that comparing them does not even tell a key's.
        self._keys = tuple(_digest(key.encode()) for key in api_keys)
        bound = [parsed for parsed in map(_address, addresses) if parsed is not None]
        self._addresses = set(bound)
        self._any_address = any(address.is_unspecified for address in bound)
        self._known_hosts: set[bytes] = set()

    def judge(self, head: Head, reply: Reply) -> None:
        """Admit and authorize *head*, unless this guard has done so before.

        *reply* gets its CORS lines, a refusal by `authorize` too.

        Raises:
            LlmdError: As those two.
        """
        if head.admitted is not None and head.admitted[0] is self:
            reply.lines += head.admitted[1]
            return
        cors = self.admit(head)
        reply.lines += cors
        self.authorize(head)
        head.admitted = (self, cors)

    def admit(self, head: Head) -> bytes:
        """See who is behind *head*; returns the CORS header lines of its answer, mostly none.

        `authorize` comes next, once its refusals carry those lines: an admitted page may read them.

        Raises:
            InvalidRequestError: HTTP/1.1 without a Host, or with a malformed one.
            ForbiddenOriginError: The Host is no name of this machine, or a page is behind it that
                the configuration does not name.
        """
        fields = head.fields
        host = fields.get(b"host")
        if host not in self._known_hosts:
            self._check_host(host, head)
        return self._check_origin(fields) if _of_a_page(fields) else b""

    def authorize(self, head: Head) -> None:
        """See what an admitted *head* brings.

        Raises:
            MediaTypeError: It is a page's, and no JSON.
            UnauthorizedError: A key is needed and not there.
        """
        fields = head.fields
        if (
            head.method in _BODIED
            and _of_a_page(fields)
            and not _is_json(fields.get(b"content-type", b""))
        ):
            raise MediaTypeError(
                "web pages may send JSON only",
                remedy="send it with `Content-Type: application/json`",
            )
        if self._keys and head.path != "/health" and not _is_preflight(head):
            self._check_key(fields)

    def preflight(self, head: Head) -> bytes:
        """The header lines that answer an admitted OPTIONS request."""
        fields = head.fields
        lines = b"Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"
        if not _is_preflight(head):
            return lines
        lines += b"Access-Control-Allow-Methods: GET, HEAD, POST, PUT, PATCH, DELETE\r\n"
        wanted = fields.get(b"access-control-request-headers")
        if wanted:
            lines += b"Access-Control-Allow-Headers: %b\r\n" % wanted
        if b"access-control-request-private-network" in fields:
            lines += b"Access-Control-Allow-Private-Network: true\r\n"
        return lines + b"Access-Control-Max-Age: 7200\r\n"

    def _check_host(self, host: bytes | None, head: Head) -> None:
        if host is None:
            if head.minor == 0:
                return
            raise InvalidRequestError("an HTTP/1.1 request must have a Host header")
        name = _host_name(host)
        if name is None:
            raise InvalidRequestError("the Host header is malformed")
        if not self._is_ours(name):
            raise ForbiddenOriginError(
                f"{name!r} is not a name of this machine",
                remedy=f"use 127.0.0.1, or add {name} to `allowed_hosts`",
            )
        if len(self._known_hosts) < _MAX_REMEMBERED:
            self._known_hosts.add(host)

    def _is_ours(self, name: str) -> bool:
        if name in self._names:
            return True
        # An address cannot be rebound: a page under a foreign name does not come with one.
        address = _address(name)
        return address is not None and (
            address.is_loopback or self._any_address or address in self._addresses
        )

    def _check_origin(self, fields: dict[bytes, bytes]) -> bytes:
        origin = fields.get(b"origin")
        if origin is None:
            # A form, an image or a link of another site: such requests have no Origin.
            site = fields[b"sec-fetch-site"].strip().lower()
            if site in {b"cross-site", b"same-site"}:
                raise ForbiddenOriginError("another web site caused this request")
            return b""
        text = origin.decode("latin-1").strip()
        if text == "null" or not ("*" in self._origins or text.lower() in self._origins):
            raise ForbiddenOriginError(
                f"web pages of {text!r} may not use this port",
                remedy=f"add {text} to `cors_origins`" if text != "null" else "",
            )
        return b"Access-Control-Allow-Origin: %b\r\nVary: Origin\r\n%b" % (origin, _EXPOSED)

    def _check_key(self, fields: dict[bytes, bytes]) -> None:
        given = fields.get(b"x-api-key", b"")
        scheme, _, credentials = fields.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer":
            given = credentials.strip()
        known = False
        digest = _digest(given)
        for key in self._keys:
            # All are compared: the time taken tells nothing about which one was close.
            known |= hmac.compare_digest(key, digest)
        if not known:
            raise UnauthorizedError(
                "this port needs an API key" if not given else "the API key is not known",
                remedy="send one of `api_keys` as `Authorization: Bearer …`",
            )


def _is_preflight(head: Head) -> bool:
    return head.method == b"OPTIONS" and (
        b"access-control-request-method" in head.fields and b"origin" in head.fields
    )


def _of_a_page(fields: dict[bytes, bytes]) -> bool:
    """Whether a browser says that a page or its user caused the request."""
    return b"origin" in fields or b"sec-fetch-site" in fields


def _is_json(content_type: bytes) -> bool:
    kind = content_type.partition(b";")[0].strip().lower()
    return kind == b"application/json" or (
        kind.startswith(b"application/") and kind.endswith(b"+json")
    )


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()


def _host_name(host: bytes) -> str | None:
    """The name in a Host header, in lower case and without port; None when malformed."""
    text = host.decode("latin-1").strip().lower()
    if text.startswith("["):
        name, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            return None
        port = port[1:]
    else:
        name, _, port = text.partition(":")
    if not name or (port and not (port.isascii() and port.isdigit())):
        return None
    return name.rstrip(".")


def _address(text: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
