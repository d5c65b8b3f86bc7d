"""One chat: asked on the profile's own port as any client would ask, and followed to its end."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
import anyio
import msgspec

from llmd.admin import asking, wire
from llmd.admin.names import find_profile
from llmd.errors import LlmdError
from llmd.mcp.arguments import Chat, present, read
from llmd.mcp.daemon import Daemon
from llmd.mcp.progress import Progress, describe_comment, describe_wait


LOOK_EVERY_S: Final = 0.25
"""How often a status is asked for while a request waits. The daemon's comments come every 5 s."""
_DIAL_S: Final = 10.0


class NoAnswerTextError(LlmdError):
    """The model used up its tokens before it came to its answer."""

    code = "no_answer_text"


@dataclass
class Answer:
    """What a profile has said so far."""

    profile: str
    content: str = ""
    reasoning: str = ""
    finish_reason: str | None = None
    usage: dict[str, Any] = field(default_factory=dict)
    pieces: int = 0
    """Of content and reasoning; about as many as tokens."""

    def take(self, event: dict[str, Any]) -> None:
        """Add what a chunk carries."""
        self.usage = event.get("usage") or self.usage
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            content, reasoning = delta.get("content") or "", asking.reasoning_of(delta)
            self.content += content
            self.reasoning += reasoning
            self.pieces += bool(content) + bool(reasoning)
            self.finish_reason = choice.get("finish_reason") or self.finish_reason

    def document(self) -> dict[str, Any]:
        """For the structured content of a result."""
        document = {
            "profile": self.profile,
            "content": self.content,
            "finish_reason": self.finish_reason,
            "usage": self.usage,
        }
        return document | ({"reasoning": self.reasoning} if self.reasoning else {})


async def chat(daemon: Daemon, arguments: dict[str, Any] | None, progress: Progress) -> Answer:
    """Have a profile answer; loads it if need be, and tells *progress* what happens meanwhile.

    A caller that is cancelled closes the connection, which ends the engine's work.

    Raises:
        InvalidRequestError: The arguments do not fit.
        ModelNotFoundError: There is no such profile.
        NoAnswerTextError: Reasoning took all of `max_tokens`.
        LlmdError: The daemon or the engine said no, or the stream broke off.
    """
    wanted = read(arguments, Chat)
    status = await daemon.ask(lambda client: client.status())
    profile = find_profile(wanted.profile, status.profiles)
    fields = present(arguments) | {
        "model": profile.name,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    del fields["profile"]
    answer = Answer(profile.name)
    failure: LlmdError | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_follow_wait, daemon, answer, progress)
        try:
            await _stream(asking.address_of(profile, status.ports), fields, answer, progress)
        except LlmdError as error:
            failure = error  # raised below: a task group would wrap it
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if not answer.content and answer.finish_reason == "length" and answer.reasoning:
        raise NoAnswerTextError(
            f"{profile.name} reached its limit of tokens while it was still thinking",
            remedy="give more `max_tokens`",
            param="max_tokens",
        )
    return answer


async def _stream(
    address: tuple[str, int], fields: dict[str, Any], answer: Answer, progress: Progress
) -> None:
    """Send the request, and read the answer to its end.

    Raises:
        LlmdError: It ended in an error, or without its end.
    """
    async with aclosing(_lines(address, msgspec.json.encode(fields))) as lines:
        async for line in lines:
            if line.event is not None:
                answer.take(line.event)
                if answer.pieces:
                    thinking = not answer.content
                    await progress.tell_tokens(answer.profile, answer.pieces, reasoning=thinking)
            elif line.comment is not None:
                await progress.tell(describe_comment(answer.profile, line.comment))
            elif line.done:
                return
    raise asking.cut_short()


async def _lines(address: tuple[str, int], body: bytes) -> AsyncGenerator[asking.Line, None]:
    """The lines of the answer to *body*. Closing the iterator closes the connection."""
    host, port = address
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}{asking.CHAT_PATH}"
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_DIAL_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.post(url, data=body, headers=asking.headers()) as response,
        ):
            if response.status >= 400:
                raise asking.refusal(await response.read(), response.status)
            rest = b""
            async for block in response.content.iter_any():
                *lines, rest = (rest + block).split(b"\n")
                for line in lines:
                    yield asking.read_line(line)
    except aiohttp.ClientConnectorError as error:
        raise asking.port_closed(host, port) from error
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise asking.connection_broke(port, error) from error


async def _follow_wait(daemon: Daemon, answer: Answer, progress: Progress) -> None:
    """Tell what the request waits for, until its answer begins."""
    while not answer.pieces:
        try:
            profiles = await daemon.ask(lambda client: client.profiles())
        except LlmdError:
            profiles = ()  # the request itself will tell what is wrong
        for profile in profiles:
            if profile.name == answer.profile:
                await _tell_wait(profile, answer, progress)
        await anyio.sleep(LOOK_EVERY_S)


async def _tell_wait(profile: wire.Profile, answer: Answer, progress: Progress) -> None:
    if not answer.pieces and (words := describe_wait(profile)):
        await progress.tell_news(words)
