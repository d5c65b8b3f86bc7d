"""The tools: what each is called, takes and does."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from mcp.types import CallToolResult, Tool, ToolAnnotations

from llmd.mcp import results
from llmd.mcp.arguments import Arguments, Chat, Nothing, OneProfile, read, schema_of
from llmd.mcp.chat import chat
from llmd.mcp.daemon import Daemon
from llmd.mcp.progress import Progress


Values = dict[str, Any] | None
Run = Callable[[Daemon, Values, Progress], Awaitable[CallToolResult]]


async def _chat(daemon: Daemon, values: Values, progress: Progress) -> CallToolResult:
    answer = await chat(daemon, values, progress)
    return results.success(answer.content, answer.document())


async def _status(daemon: Daemon, values: Values, _progress: Progress) -> CallToolResult:
    read(values, Nothing)
    status = await daemon.ask(lambda client: client.status())
    return results.success(results.status_text(status), status)


async def _profiles(daemon: Daemon, values: Values, _progress: Progress) -> CallToolResult:
    read(values, Nothing)
    profiles = await daemon.ask(lambda client: client.profiles())
    return results.success(results.profiles_text(profiles), {"profiles": profiles})


async def _plan(daemon: Daemon, values: Values, _progress: Progress) -> CallToolResult:
    profile = read(values, OneProfile).profile
    report = await daemon.ask(lambda client: client.plan(profile))
    return results.success(results.plan_text(report), report)


async def _load(daemon: Daemon, values: Values, progress: Progress) -> CallToolResult:
    report = await daemon.load(read(values, OneProfile).profile, progress)
    return results.success(results.load_text(report), report)


async def _unload(daemon: Daemon, values: Values, _progress: Progress) -> CallToolResult:
    profile = read(values, OneProfile).profile
    report = await daemon.ask(lambda client: client.unload(profile))
    return results.success(results.unload_text(profile, report), report)


_READS: Final = {"read_only_hint": True}
# Other people's models go when one is loaded or unloaded; doing it twice does no more.
_CHANGES: Final = {"read_only_hint": False, "destructive_hint": True, "idempotent_hint": True}
# It may evict what is idle, as any request may; it undoes nothing that somebody asked for.
_ASKS: Final = {"read_only_hint": False, "destructive_hint": False, "idempotent_hint": False}


@dataclass(frozen=True, slots=True)
class ToolEntry:
    """One tool: what clients are told of it, and what it does."""

    name: str
    title: str
    description: str
    takes: type[Arguments]
    hints: dict[str, bool]
    run: Run

    def describe(self) -> Tool:
        """For `tools/list`."""
        return Tool(
            name=self.name,
            title=self.title,
            description=self.description,
            input_schema=schema_of(self.takes),
            annotations=ToolAnnotations(title=self.title, open_world_hint=False, **self.hints),
        )


_CHAT: Final = (
    "Have a local language model answer a conversation, and return its answer. The profile is "
    "loaded if need be, which may take a minute; progress is reported meanwhile."
)

ENTRIES: Final = (
    ToolEntry("llama_cpp_chat", "Ask a local model", _CHAT, Chat, _ASKS, _chat),
    ToolEntry(
        "local_llm_chat",
        "Ask a local model",
        f"{_CHAT} The same as llama_cpp_chat.",
        Chat,
        _ASKS,
        _chat,
    ),
    ToolEntry(
        "llmd_status",
        "Status of llmd",
        "The memory budget, the ports, and what each profile does now.",
        Nothing,
        _READS,
        _status,
    ),
    ToolEntry(
        "llmd_profiles",
        "Local models",
        "The profiles that can be asked: name, aliases, engine, context length, state and size.",
        Nothing,
        _READS,
        _profiles,
    ),
    ToolEntry(
        "llmd_plan",
        "Plan a load",
        "What loading a profile would do: whom it would evict, bytes, seconds. Changes nothing.",
        OneProfile,
        _READS,
        _plan,
    ),
    ToolEntry(
        "llmd_load",
        "Load a model",
        "Make a profile resident, and return once it is ready. May evict idle models that others "
        "use. Asking loads, too: this is only for loading ahead of time.",
        OneProfile,
        _CHANGES,
        _load,
    ),
    ToolEntry(
        "llmd_unload",
        "Unload a model",
        "Let a profile's memory go, once its requests in flight are finished. Others may be using "
        "it: they will have to wait for it to be loaded again.",
        OneProfile,
        _CHANGES,
        _unload,
    ),
)
"""In the order in which clients list them."""
