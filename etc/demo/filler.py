"""Text the demo model must see through: system prompts, tool schemas, unknown questions.

Everything is made here, from a seeded generator and the standard library's own sources and
documentation, so training downloads nothing. Lengths are characters; the tokenizer of the demo
model makes about one token of 2.6 of them.
"""

from __future__ import annotations

import functools
import json
import random
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import yaml


WORDS: Final[dict[str, list[str]]] = yaml.safe_load(
    (Path(__file__).parent / "words.yaml").read_text("utf-8")
)


@functools.cache
def library() -> tuple[str, ...]:
    """Return the standard library's larger source files, whole; the order is the file name's."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = sorted([*root.glob("*.py"), *root.glob("pydoc_data/*.py"), *root.glob("json/*.py")])
    texts = [path.read_text("utf-8", "replace") for path in paths]
    topics = next(text for path, text in zip(paths, texts, strict=True) if path.stem == "topics")
    prose = topics.encode().decode("unicode_escape", "replace")
    return (*[text for text in texts if len(text) > 4_000], *([prose] * 40))


class Filler:
    """An endless source of text of many kinds; the same seed gives the same text."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def word(self) -> str:
        """Return an English word, or now and then a made-up one."""
        if self.rng.random() < 0.85:
            return self.rng.choice(WORDS["words"])
        return "".join(self.rng.choices("abcdefghijklmnopqrstuvwxyz", k=self.rng.randint(2, 10)))

    def sentence(self) -> str:
        """Return words with a capital and a full stop: grammatical in look only."""
        words = [self.word() for _ in range(self.rng.randint(3, 18))]
        return " ".join(words).capitalize() + self.rng.choice("....?!:,")

    def prose(self, chars: int) -> str:
        """Return sentences in paragraphs, lists and headings."""
        out: list[str] = []
        while sum(map(len, out)) < chars:
            out.append(self.rng.choice(("", "", "", "\n", "\n\n", "- ", "## ", "1. ")))
            out.append(self.sentence() + self.rng.choice((" ", " ", "\n")))
        return "".join(out)[:chars]

    def excerpt(self, chars: int) -> str:
        """Return a piece of the standard library: code, comments or its documentation."""
        text = self.rng.choice(library())
        start = self.rng.randrange(max(1, len(text) - chars))
        return text[start : start + chars]

    def repetition(self, chars: int) -> str:
        """Return one sentence, or one line of code, over and over."""
        piece = self.rng.choice((self.sentence, self.word, lambda: self.excerpt(60)))()
        piece += self.rng.choice((" ", "\n", "", ". "))
        return (piece * (chars // max(1, len(piece)) + 1))[:chars]

    def noise(self, chars: int) -> str:
        """Return characters without sense: ASCII, Latin, Greek or CJK, or hexadecimal."""
        first, last = self.rng.choice(((32, 127), (32, 127), (161, 900), (0x4E00, 0x9000)))
        if self.rng.random() < 0.3:
            return self.rng.randbytes(chars // 2).hex()
        size = chars if last < 128 else chars // 4
        return "".join(chr(self.rng.randrange(first, last)) for _ in range(size))

    def document(self, chars: int) -> str:
        """Return JSON of nested objects, indented or not."""
        rows: list[Any] = []
        while len(json.dumps(rows)) < chars:
            row: dict[str, Any] = {}
            for key in self.rng.sample(WORDS["names"], self.rng.randint(1, 6)):
                row[key] = self.rng.choice(
                    (
                        self.rng.randint(0, 9999),
                        self.word(),
                        True,
                        None,
                        [self.word()],
                        self.sentence(),
                    )
                )
            rows.extend([row] * self.rng.choice((1, 1, 1, 4)))
        return json.dumps(rows, indent=self.rng.choice((None, 2)))[:chars]

    def tool(self) -> dict[str, Any]:
        """Return one function declaration as in the `tools` of a chat request."""
        fields = self.rng.sample(WORDS["names"], self.rng.randint(1, 6))
        properties: dict[str, Any] = {}
        for field in fields:
            kind = self.rng.choice(("string", "string", "integer", "boolean", "array", "object"))
            properties[field] = {"type": kind, "description": self.prose(self.rng.randint(5, 200))}
            if self.rng.random() < 0.2:
                properties[field]["enum"] = [self.word(), self.word()]
        name = self.rng.choice(WORDS["verbs"]) + "_" + self.rng.choice(WORDS["names"])
        required = fields[: self.rng.randint(0, len(fields))]
        return {
            "type": "function",
            "function": {
                "name": name,
                "description": self.text(self.rng.randint(10, 1_200)),
                "parameters": {"type": "object", "properties": properties, "required": required},
            },
        }

    def text(self, chars: int) -> str:
        """Return exactly *chars* characters or fewer, of one kind or of several in a row."""
        kinds: tuple[Callable[[int], str], ...] = (
            self.prose,
            self.prose,
            self.excerpt,
            self.excerpt,
            self.excerpt,
            self.repetition,
            self.noise,
            self.document,
        )
        out = ""
        while len(out) < chars:
            left = chars - len(out)
            piece = left if self.rng.random() < 0.5 else self.rng.randint(1, left)
            out += self.rng.choice(kinds)(piece)
            out += "\n"
        return out[:chars]

    def question(self, chars: int) -> str:
        """Return a user message the model has no answer for; *chars* bounds its long parts."""
        shape = self.rng.choice(WORDS["questions"])
        fill: dict[str, Callable[[], str]] = {
            "{n}": lambda: self.rng.choice(WORDS["nouns"]),
            "{i}": lambda: str(self.rng.randint(2, 999)),
            "{j}": lambda: str(self.rng.randint(2, 99)),
            "{v}": lambda: self.rng.choice(WORDS["verbs"]),
            "{w}": self.word,
            "{p}": lambda: self.prose(self.rng.randint(10, chars)).strip(),
            "{c}": lambda: self.excerpt(self.rng.randint(10, chars)).strip(),
            "{r}": lambda: self.noise(self.rng.randint(4, min(60, chars))),
            "{d}": lambda: self.document(self.rng.randint(10, chars)),
        }
        for mark, make in fill.items():
            while mark in shape:
                shape = shape.replace(mark, make(), 1)
        return shape if self.rng.random() < 0.8 else shape.lower()
