"""The MCP server: requests of the protocol to tools and resources."""

from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.types import (
    CallToolRequestParams,
    CallToolResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
)

import llmd
from llmd.errors import InvalidRequestError
from llmd.mcp import resources, results
from llmd.mcp.daemon import Daemon
from llmd.mcp.progress import Progress
from llmd.mcp.tools import ENTRIES


Context = ServerRequestContext[Any, Any]

_INSTRUCTIONS = (
    "Local language models, kept by llmd on this machine. llama_cpp_chat asks one; llmd_profiles "
    "lists them. Load and unload only when asked to: memory is shared with other programs."
)


def build(daemon: Daemon) -> Server[Any]:
    """A server in front of *daemon*, to be run on any transport."""
    entries = {entry.name: entry for entry in ENTRIES}

    async def list_tools(_ctx: Context, _params: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=[entry.describe() for entry in ENTRIES])

    async def call_tool(ctx: Context, params: CallToolRequestParams) -> CallToolResult:
        try:
            if params.name not in entries:
                raise InvalidRequestError(
                    f"there is no tool {params.name[:80]!r}",
                    remedy=f"there are {', '.join(entries)}",
                )
            progress = Progress(ctx.session.report_progress)
            return await entries[params.name].run(daemon, params.arguments, progress)
        except Exception as error:  # noqa: BLE001  # the model reads it; the server goes on
            return results.failure(error)

    async def list_resources(
        _ctx: Context, _params: PaginatedRequestParams | None
    ) -> ListResourcesResult:
        return await resources.listed(daemon)

    async def list_templates(
        _ctx: Context, _params: PaginatedRequestParams | None
    ) -> ListResourceTemplatesResult:
        return resources.templates()

    async def read_resource(_ctx: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
        return await resources.contents(daemon, params.uri)

    return Server(
        "llmd",
        version=llmd.__version__,
        title="Local models",
        instructions=_INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        on_list_resources=list_resources,
        on_list_resource_templates=list_templates,
        on_read_resource=read_resource,
    )
