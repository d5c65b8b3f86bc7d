"""What a chat model says, as blocks: stretches of reasoning and text, and calls of functions.

OpenAI's chat format has one growing text and one list of calls; Anthropic's Messages and OpenAI's
Responses have a sequence in which each block begins, grows and ends before the next one begins.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal


Kind = Literal["reasoning", "text", "call"]


@dataclass(slots=True)
class Block:
    """One block.

    Attributes:
        text: What it says; of a call, the arguments as JSON.
        name: Of the function, in a call.
    """

    kind: Kind
    text: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Begun:
    """A block is there; nothing of its text yet."""

    block: Block


@dataclass(frozen=True, slots=True)
class Grown:
    """*text* came to the end of the block."""

    block: Block
    text: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The block is whole."""

    block: Block


Step = Begun | Grown | Ended


class Blocks:
    """Sorts the messages or deltas of one chat completion into blocks.

    Between reasoning, text and calls templates leave line breaks that say nothing: they are dropped
    at the beginning of reasoning and of text that follows something, and a block of nothing else is
    none.
    """

    def __init__(self) -> None:
        self.whole: list[Block] = []
        """The blocks that have ended."""
        self._current: Block | None = None
        self._calls: dict[int, Block] = {}
        self._blank = ""
        """White space that came between two blocks, and belongs to the next one if to any."""

    def feed(self, message: Mapping[str, Any]) -> Iterator[Step]:
        """What *message*, a whole one or a delta, adds."""
        if reasoning := message.get("reasoning_content"):
            yield from self._say("reasoning", reasoning)
        if text := message.get("content"):
            yield from self._say("text", text)
        for call in message.get("tool_calls") or ():
            yield from self._call(call)

    def end(self) -> Iterator[Step]:
        """The answer is over."""
        if self._current is not None:
            yield Ended(self._current)
            self.whole.append(self._current)
            self._current = None

    def _begin(self, block: Block) -> Iterator[Step]:
        yield from self.end()
        self._current = block
        self._blank = ""
        yield Begun(block)

    def _say(self, kind: Kind, text: str) -> Iterator[Step]:
        block = self._current
        if block is None or block.kind != kind:
            text = self._blank + text
            if not text.strip():
                self._blank = text
                return
            if kind == "reasoning" or block is not None or self.whole:
                text = text.lstrip("\r\n")
            block = Block(kind)
            yield from self._begin(block)
        block.text += text
        yield Grown(block, text)

    def _call(self, call: Mapping[str, Any]) -> Iterator[Step]:
        function = call.get("function") or {}
        index = call.get("index", len(self._calls))
        block = self._calls.get(index)
        if block is None:
            block = self._calls[index] = Block("call", name=function.get("name") or "")
            yield from self._begin(block)
        if arguments := function.get("arguments"):
            block.text += arguments
            yield Grown(block, arguments)
