"""Which headers are between two neighbours only, and do not pass: in either direction."""

from typing import Final


NOT_FORWARDED: Final = frozenset(
    {
        # Between the client and llmd only (RFC 9110, 7.6.1).
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
        b"expect",
        # Written anew for the engine.
        b"host",
        b"content-length",
        b"x-request-id",
        # Answers are read (errors, ends of streams) and cross no network: no compression.
        b"accept-encoding",
        # The client's secrets are not the engine's business, nor a remote's.
        b"authorization",
        b"x-api-key",
        b"cookie",
        # llama.cpp goes on without its client for one that names its conversation, and lets
        # others read along.
        b"x-conversation-id",
        # llmd is the one that judges origins; an engine with its own idea would only break pages.
        b"origin",
        b"referer",
        b"sec-fetch-site",
        b"access-control-request-method",
        b"access-control-request-headers",
        b"access-control-request-private-network",
    }
)
"""Request headers that are kept in `Request.fields` and not passed on."""

ONCE: Final = frozenset(
    {
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"authorization",
        b"x-api-key",
        b"origin",
        # What the body is: some engines believe the first, some the last.
        b"content-type",
        b"content-encoding",
    }
)
"""Headers that mean trouble when they come twice."""

NOT_PASSED_BACK: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"proxy-authenticate",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"alt-svc",
        # Written anew for the client.
        b"content-length",
        b"x-request-id",
        b"x-llmd-profile",
        # A cookie for localhost would go to every other program on localhost.
        b"set-cookie",
    }
)
CORS: Final = b"access-control-"
"""Engines like to answer `Access-Control-Allow-Origin: *`; llmd is the one that judges origins."""
