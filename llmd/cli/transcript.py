"""A long text, as `condense` works on it: code under marks, and pieces. Plain functions."""

import re
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from typing import Final, NamedTuple

from llmd.cli.blocks import Fence


_WORDS: Final = ("code", "listing", "snippet")
"""What a mark begins with: the first that the text does not use so itself."""
_SPEAKER: Final = re.compile(
    r"(#{1,6} +|>? *\*\*|__|<|\[)?"
    r"(user|human|you|me|assistant|ai|bot|model|system|tool|developer|chatgpt|claude|cline)\b"
    r"[^:]{0,40}(:|>|\]|\*\*:?|__:?)? *",
    re.IGNORECASE,
)
_RULE: Final = re.compile(r"(-{3,}|={3,}|\*{3,})\s*")
_OPENS_WITH_NAME: Final = re.compile(r"[ \t]*(`{3,}|~{3,})[ \t]*[^\s`~]")


class Cut(IntEnum):
    """How good a place the beginning of a line is to cut a text."""

    IN_CODE = 0
    LINE = 1
    PARAGRAPH = 2
    MESSAGE = 3


class Code(NamedTuple):
    """A block of code, fences included, and the mark that stands for it."""

    mark: str
    text: str


class Marked(NamedTuple):
    """A text with a mark before each block of code, and the blocks."""

    text: str
    codes: tuple[Code, ...]


def size_bytes(text: str) -> int:
    """The length of *text* in UTF-8."""
    return len(text.encode())


def mark_code(text: str, view_bytes: int) -> Marked:
    """Put a mark before each block of code; one block, however often it is there, has one mark.

    Of a block of more than *view_bytes* only the first lines are left in the text: enough to tell
    what it is. The blocks themselves are whole.
    """
    word = next((word for word in _WORDS if f"[{word} " not in text), "block")
    marks: dict[str, str] = {}
    parts: list[str] = []
    for part, is_code in _parts(text):
        if not is_code:
            parts.append(part)
            continue
        code = part.rstrip("\n")
        seen = code in marks
        mark = marks.setdefault(code, f"[{word} {len(marks) + 1}]")
        parts.append(f"{mark}\n" if seen else f"{mark}\n{_view(code, view_bytes)}\n")
    return Marked("".join(parts), tuple(Code(mark, code) for code, mark in marks.items()))


def put_code_back(text: str, codes: Sequence[Code]) -> str:
    """*text* with each block below the first line that has its mark.

    A block that *text* repeats is not there twice, and one that it never mentions comes at the end,
    so that no code is lost.
    """
    known = {_bare(code.text): code for code in codes}
    parts: list[str] = []
    for part, is_code in _parts(text):
        code = known.get(_bare(part)) if is_code else None
        if code is None:
            parts.append(part)
        elif code.mark not in "".join(parts):
            parts.append(f"{code.mark}\n")
    lines = "".join(parts).strip("\n").split("\n")
    missing = list(codes)
    whole: list[str] = []
    for line in lines:
        here = [code for code in missing if code.mark in line]
        whole.append(line)
        for code in here:
            whole.append(code.text)
            missing.remove(code)
    if missing:
        whole.append("\n## Code that is not mentioned above")
        whole += [f"\n{code.mark}\n{code.text}" for code in missing]
    return "\n".join(whole).strip("\n")


def split(text: str, room_bytes: int) -> list[str]:
    """*text* in pieces of at most *room_bytes*, which joined are *text* again.

    Cuts before a message where there is one in the second half of the room, else before a
    paragraph, else before a line; inside a line only when it is longer than the room.
    """
    if room_bytes < 8:
        raise ValueError(f"no room for text: {room_bytes} bytes")
    pieces: list[str] = []
    piece: list[tuple[Cut, str, int]] = []
    held = 0
    for cut, line in _short_lines(text, room_bytes):
        size = size_bytes(line)
        if held + size > room_bytes:
            at = _best_cut(piece, cut, room_bytes)
            pieces.append("".join(part for _, part, _ in piece[:at]))
            piece = piece[at:]
            held = sum(size for _, _, size in piece)
            if held + size > room_bytes:  # what was left over and this line are too much
                pieces.append("".join(part for _, part, _ in piece))
                piece, held = [], 0
        piece.append((cut, line, size))
        held += size
    return [*pieces, "".join(part for _, part, _ in piece)] if piece else pieces


def _best_cut(piece: Sequence[tuple[Cut, str, int]], following: Cut, room_bytes: int) -> int:
    """How many lines of the full *piece* to take; *following* is how good its end is."""
    best, at = following, len(piece)
    held = 0
    for index, (cut, _, size) in enumerate(piece):
        if held * 2 >= room_bytes and cut > best:
            best, at = cut, index
        elif held * 2 >= room_bytes and cut == best and at != len(piece):
            at = index
        held += size
    return at


def _short_lines(text: str, room_bytes: int) -> Iterator[tuple[Cut, str]]:
    """The lines of *text* with the quality of a cut before each; those too long in parts."""
    for cut, line in _lines(text):
        if size_bytes(line) <= room_bytes:
            yield cut, line
            continue
        rest = line
        while rest:
            head = rest.encode()[:room_bytes].decode(errors="ignore")
            space = head.rfind(" ", len(head) // 2) + 1
            head = head[:space] if space and len(head) < len(rest) else head
            yield cut if len(rest) == len(line) else Cut.LINE, head
            rest = rest[len(head) :]


def _lines(text: str) -> Iterator[tuple[Cut, str]]:
    after_blank = True
    for part, is_code in _parts(text):
        for line in part.splitlines(keepends=True):
            blank = line.isspace() or is_code
            if is_code:  # even at its beginning: its mark is the line before it
                yield Cut.IN_CODE, line
            elif _is_message(line, after_blank=after_blank):
                yield Cut.MESSAGE, line
            elif after_blank and not blank:
                yield Cut.PARAGRAPH, line
            else:
                yield Cut.LINE, line
            after_blank = blank


def _is_message(line: str, *, after_blank: bool) -> bool:
    """Whether a message of a chat begins with *line*: somebody's name, or a rule."""
    if _RULE.fullmatch(line):
        return after_blank
    match = _SPEAKER.match(line)
    return match is not None and (bool(match[3]) or (bool(match[1]) and match.end() == len(line)))


def _parts(text: str) -> Iterator[tuple[str, bool]]:
    """*text* in order: blocks of code with their fences, and what is between them.

    A fence that is never closed, or inside which another one opens, is no code: otherwise one
    stray fence would make prose of all the code after it, and code of all the prose. Inside a fence
    of more than three, others are text.
    """
    prose: list[str] = []
    code: list[str] = []
    fence = Fence()
    for line in text.splitlines(keepends=True):
        if fence.mark and _OPENS_WITH_NAME.match(line) and len(fence.mark) == 3:
            prose += code
            code, fence = [], Fence()
        inside = bool(fence.mark)
        fence.pass_line(line)
        if not inside and not fence.mark:
            prose.append(line)
            continue
        code.append(line)
        if not fence.mark:
            if prose:
                yield "".join(prose), False
            yield "".join(code), True
            prose, code = [], []
    prose += code
    if prose:
        yield "".join(prose), False


def _view(code: str, view_bytes: int) -> str:
    """The first lines of *code*, when all are too much, closed again."""
    if size_bytes(code) <= view_bytes:
        return code
    opening, *lines, closing = code.split("\n")
    kept, left = [], view_bytes
    for line in lines:
        left -= size_bytes(line) + 1
        if left < 0:
            break
        kept.append(line)
    return "\n".join([opening, *kept, f"... {len(lines) - len(kept)} more lines", closing])


def _bare(code: str) -> str:
    """*code* without its fences and what ends its lines: models change those."""
    return "\n".join(line.rstrip() for line in _inner(code.strip().split("\n"))).strip()


def _inner(lines: Sequence[str]) -> Iterable[str]:
    return lines[1:-1]
