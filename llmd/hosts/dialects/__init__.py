"""Other dialects than chat completions, by translation there and back.

Plain data in, plain data out: no sockets, no model. The official clients' types are what the tests
hold the answers against; at run time they would cost an MLX load half a second of imports.
"""

from collections.abc import Callable
from typing import Final

from llmd.hosts.dialects.messages import Messages
from llmd.hosts.dialects.responses import Responses
from llmd.hosts.dialects.translation import Translation


__all__ = ["COUNT_TOKENS", "TRANSLATED", "Translation"]

TRANSLATED: Final[dict[str, Callable[..., Translation]]] = {
    "/v1/messages": Messages,
    "/v1/responses": Responses,
}
"""What is made of a body and `profile=` for a request to a path."""

COUNT_TOKENS: Final = "/v1/messages/count_tokens"
