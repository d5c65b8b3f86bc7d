"""A text too long for a model, made short in pieces: each piece, then what came of them, again."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from llmd.admin import asking as ports
from llmd.admin import wire
from llmd.admin.client import AnsweredError
from llmd.cli import asking
from llmd.cli.answer import Progress
from llmd.cli.question import Question
from llmd.cli.tally import Tally
from llmd.cli.transcript import mark_code, put_code_back, size_bytes, split
from llmd.errors import LlmdError, describe_bytes


COUNT_PATH: Final = "/v1/messages/count_tokens"
"""Both engines count there, with the chat template around the text."""
CONTEXT_TOKENS: Final = 4096
"""Assumed of an engine that does not tell its own."""
ANSWER_TOKENS: Final = 4096
"""At most, of one piece; never more than a quarter of the context."""
CAREFUL_BYTES: Final = 2.0
"""Bytes of one token where nobody counts: few, so that a piece surely fits."""
_SAMPLE_BYTES: Final = 256 * 2**10
_MARGIN: Final = 0.9
"""Pieces differ from the sample that was counted."""
_ROOM_MIN_BYTES: Final = 512
_SHORTER: Final = 0.9
"""A round that leaves more of its text than so is not worth another."""
_VIEW_SHARE: Final = 4


class TooLongError(LlmdError):
    """A piece does not fit the context, however small; or nothing is left of the context."""

    code = "context_length_exceeded"
    type = "invalid_request_error"


Ask = Callable[[str], str]
"""Gives a piece, returns it condensed; raises `TooLongError` when it does not fit."""
Tell = Callable[[str], None]
"""Progress, for a person."""


def condense(text: str, ask: Ask, *, room_bytes: int, tell: Tell) -> str:
    """*text* made short by *ask*, which takes at most *room_bytes* at once; code comes back whole.

    Ends when the text fits one question, and was asked about as one; or when a round has hardly
    made it shorter.

    Raises:
        TooLongError: *ask* does not take even a small piece.
    """
    marked = mark_code(text, room_bytes // _VIEW_SHARE)
    rest = marked.text
    number = 0
    while size_bytes(rest) > room_bytes:
        number += 1
        pieces = split(rest, room_bytes)
        answers: list[str] = []
        for index, piece in enumerate(pieces, start=1):
            tell(f"round {number}, piece {index} of {len(pieces)}")
            answers.append(_ask_smaller(piece, ask))
        before, rest = size_bytes(rest), "\n\n".join(answers)
        if size_bytes(rest) > before * _SHORTER:
            tell("it does not get shorter; this is as far as it went")
            return put_code_back(rest, marked.codes)
    tell("all of it" if not number else "putting the pieces together")
    return put_code_back(_ask_smaller(rest, ask), marked.codes)


def _ask_smaller(piece: str, ask: Ask) -> str:
    """*piece* condensed, in halves when the engine finds it too long after all."""
    try:
        return ask(piece)
    except TooLongError:
        half = size_bytes(piece) // 2
        if half < _ROOM_MIN_BYTES:
            raise
        return "\n\n".join(_ask_smaller(part, ask) for part in split(piece, half))


def room_bytes(text: str, empty: Question, profile: wire.Profile, address: asking.Address) -> int:
    """How much of *text* one question to *profile* may hold, in bytes.

    Args:
        text: What is to be condensed.
        empty: The question without any of it; its `max_tokens` stay free for the answer.
        profile: Whom it goes to.
        address: Where.

    Raises:
        TooLongError: The question alone leaves too little of the context.
        LlmdError: The port does not answer.
    """
    around = count_tokens(address, empty.request(profile.name))
    sample = text.encode()[:_SAMPLE_BYTES].decode(errors="ignore")
    request = Question(sample).request(profile.name)
    counted = count_tokens(address, request) if around is not None else None
    per_token = size_bytes(sample) / counted * _MARGIN if counted else CAREFUL_BYTES
    if around is None:
        words = f"{empty.system or ''}{empty.prompt}"
        around = math.ceil(size_bytes(words) / CAREFUL_BYTES) + 64
    context = profile.context or CONTEXT_TOKENS
    room = int((context - around - (empty.max_tokens or 0)) * per_token)
    if room < _ROOM_MIN_BYTES:
        raise TooLongError(
            f"the context of {profile.name} ({context} tokens) leaves no room for a text",
            remedy="raise its `context`, or lower --max-tokens",
        )
    return room


def answer_tokens(wanted: int | None, profile: wire.Profile) -> int:
    """How long the answer about one piece may be: short enough that each round gets shorter."""
    return min(wanted or ANSWER_TOKENS, (profile.context or CONTEXT_TOKENS) // 4)


def count_tokens(address: asking.Address, request: dict[str, Any]) -> int | None:
    """How many tokens the engine makes of the prompt in *request*; None when it does not count."""
    system = [m["content"] for m in request["messages"] if m["role"] == "system"]
    body = {
        "model": request["model"],
        "max_tokens": 1,
        "messages": [m for m in request["messages"] if m["role"] != "system"],
        **({"system": system[0]} if system else {}),
    }
    try:
        counted = asking.ask_whole(address, body, path=COUNT_PATH).get("input_tokens")
    except (AnsweredError, ports.CutShortError):
        return None  # whatever is wrong with the port, the question itself will meet it, too
    return counted if isinstance(counted, int) and counted > 0 else None


@dataclass
class PieceAsker:
    """Asks a profile about one piece after the other, and adds up what it took.

    Attributes:
        question_of: The question about a piece.
        profile: The name of whom to ask.
        address: Where.
        progress: Where to tell how far it is, and what is wrong.
        pieces: How many were asked about.
        prompt_tokens: In all.
        tokens: Of all answers.
    """

    question_of: Callable[[str], Question]
    profile: str
    address: asking.Address
    progress: Progress
    pieces: int = 0
    prompt_tokens: int = 0
    tokens: int = 0

    def document(self, text: str) -> dict[str, Any]:
        """*text*, which is the outcome, as a chat completion would hold it."""
        usage = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.tokens}
        return {
            "object": "chat.completion",
            "model": self.profile,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text},
                    "finish_reason": "stop",
                }
            ],
            "usage": usage | {"total_tokens": self.prompt_tokens + self.tokens},
            "pieces": self.pieces,
        }

    def summary(self, *, before: str, after: str) -> str:
        """What it took, in one line, for `-v`."""
        sizes = f"{describe_bytes(size_bytes(before))} to {describe_bytes(size_bytes(after))}"
        read = f", prompts of {self.prompt_tokens} tokens" if self.prompt_tokens else ""
        asked = "1 question" if self.pieces == 1 else f"{self.pieces} questions"
        return f"{self.profile}: {sizes} in {asked}{read}, {self.tokens} tokens"

    def __call__(self, piece: str) -> str:
        """The answer about *piece*.

        Raises:
            TooLongError: It is longer than the context.
            LlmdError: The port or the engine failed.
        """
        request = asking.streamed(self.question_of(piece).request(self.profile))
        tally = Tally()
        try:
            with asking.ask(self.address, request) as response:
                for event in asking.events(response, self.progress.detail):
                    for _ in tally.take(event):
                        self.progress.detail(f"{tally.tokens} tokens")
        except AnsweredError as error:
            if error.detail.code == TooLongError.code:
                raise TooLongError(error.message, remedy=error.remedy) from error
            raise
        self.pieces += 1
        self.prompt_tokens += tally.prompt_tokens
        self.tokens += tally.tokens
        if tally.finish == "length":
            self.progress.warn(f"the answer was cut at {tally.tokens} tokens; see --max-tokens")
        if not tally.content.strip():
            raise LlmdError(
                f"{self.profile} answered nothing about a piece",
                remedy="give it more --max-tokens, or ask another profile",
            )
        return tally.content.strip()
