"""What a model can do, as far as its chat template shows."""

import re
from typing import Final


_MARKS: Final = {
    "tools": re.compile(r"\btools\b"),
    "reasoning": re.compile(
        r"<think>|enable_thinking|reasoning_content|reasoning_effort|<\|channel\|>|\[THINK\]"
    ),
}
"""How templates speak of tools they are given, and of reasoning they put into a turn."""


def abilities_in(template: str) -> tuple[str, ...]:
    """Those of `tools` and `reasoning` that *template*, a chat template, has words for."""
    return tuple(name for name, mark in _MARKS.items() if mark.search(template))
