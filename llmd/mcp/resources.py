"""Resources: the profiles as JSON, for clients that attach such things to a conversation."""

from typing import Any, Final
from urllib.parse import quote, unquote

import msgspec
from mcp import MCPError
from mcp.types import (
    INVALID_PARAMS,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextResourceContents,
)

from llmd.admin import asking, wire
from llmd.admin.names import find_profile
from llmd.errors import LlmdError
from llmd.mcp.daemon import Daemon


ALL: Final = "llmd://profiles"
_JSON: Final = "application/json"
_UNAVAILABLE: Final = -32000


async def listed(daemon: Daemon) -> ListResourcesResult:
    """All of them; only the list itself while the daemon does not run."""
    try:
        profiles = await daemon.ask(lambda client: client.profiles())
    except LlmdError:
        profiles = ()
    everything = Resource(
        uri=ALL, name="profiles", title="Local models", mime_type=_JSON,
        description="Every profile: engine, port, context length, state and size.",
    )  # fmt: skip
    each = [
        Resource(
            uri=f"{ALL}/{quote(profile.name, safe='')}",
            name=profile.name,
            mime_type=_JSON,
            description=f"{profile.engine} on port {profile.port}",
        )
        for profile in profiles
    ]
    return ListResourcesResult(resources=[everything, *each])


def templates() -> ListResourceTemplatesResult:
    """The form of one profile's address."""
    one = ResourceTemplate(
        uri_template=f"{ALL}/{{name}}",
        name="profile",
        title="A local model",
        mime_type=_JSON,
        description="One profile, by its name or an alias.",
    )
    return ListResourceTemplatesResult(resource_templates=[one])


async def contents(daemon: Daemon, uri: str) -> ReadResourceResult:
    """What is at *uri*.

    Raises:
        MCPError: Nothing is there, or the daemon does not answer; resources have no other errors.
    """
    try:
        status = await daemon.ask(lambda client: client.status())
        if uri == ALL:
            document: Any = [_describe(profile, status) for profile in status.profiles]
        elif uri.startswith(f"{ALL}/"):
            name = unquote(uri.removeprefix(f"{ALL}/"))
            document = _describe(find_profile(name, status.profiles), status)
        else:
            raise MCPError(INVALID_PARAMS, f"there is no resource {uri[:200]}; there is {ALL}")
    except LlmdError as error:
        code = INVALID_PARAMS if error.status < 500 else _UNAVAILABLE
        said = error.to_openai()
        raise MCPError(code, said["error"]["message"], said["error"]) from error
    text = msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
    return ReadResourceResult(contents=[TextResourceContents(uri=uri, mime_type=_JSON, text=text)])


def _describe(profile: wire.Profile, status: wire.Status) -> dict[str, Any]:
    host, port = asking.address_of(profile, status.ports)
    shown = f"[{host}]" if ":" in host else host
    fields: dict[str, Any] = msgspec.to_builtins(profile)
    return {"base_url": f"http://{shown}:{port}/v1"} | fields
