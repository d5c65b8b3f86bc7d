"""Where a Markdown text may be cut while it is still being written. Plain functions."""

import re
from typing import Final


_FENCE: Final = re.compile(r"[ \t]*(`{3,})[^`]*$|[ \t]*(~{3,}).*$")
_HEADING: Final = re.compile(r"#{1,6}([ \t]|$)")


class Fence:
    """Whether the lines that went by have opened a code fence, and not closed it."""

    def __init__(self) -> None:
        self.mark = ""

    def pass_line(self, line: str) -> bool:
        """Whether *line*, the next one, begins or ends a fence."""
        match = _FENCE.match(line.rstrip())
        if match is None:
            return False
        mark = match[1] or match[2]
        if not self.mark:
            self.mark = mark
            return True
        if mark.startswith(self.mark) and line.strip() == mark:
            self.mark = ""
            return True
        return False


def split_finished(text: str) -> tuple[list[str], str]:
    """The blocks of *text* that no further text can change, and the rest.

    A block ends where the next line begins at the left margin after an empty line, or where a
    fence or a heading begins or ends. Only whole lines decide, so that it does not matter in which
    pieces a text arrives. Blocks and rest joined are *text*.
    """
    blocks: list[str] = []
    block: list[str] = []
    lines = text.splitlines(keepends=True)
    unfinished = lines.pop() if lines and not lines[-1].endswith("\n") else ""
    fence = Fence()
    after_blank = False

    def cut() -> None:
        if any(not line.isspace() for line in block):
            blocks.append("".join(block))
            block.clear()

    for line in lines:
        inside = bool(fence.mark)
        mark = fence.pass_line(line)
        at_margin = not line[0].isspace()
        if inside:
            block.append(line)
            if mark and at_margin:
                cut()
            continue
        heading = bool(_HEADING.match(line))
        if at_margin and (after_blank or mark or heading):
            cut()
        block.append(line)
        after_blank = line.isspace()
        if heading:
            cut()
    return blocks, "".join(block) + unfinished
