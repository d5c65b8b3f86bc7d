"""Training sequences: filler, then questions with the answers the demo model has to give.

The layout of a conversation is the chat template's; `train.py` asserts that both agree.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from filler import Filler
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer


HERE: Final = Path(__file__).parent
CHARS_PER_TOKEN: Final = 2.3


@dataclass(frozen=True)
class Pair:
    """One thing the model knows: a user message (or tool result) and the text it replies."""

    name: str
    prompts: tuple[str, ...]
    reply: str
    after: str | None = None
    tools: tuple[str, ...] = ()


@dataclass(frozen=True)
class Book:
    """The content of prompts.yaml."""

    pairs: tuple[Pair, ...]
    completions: tuple[tuple[str, str], ...]
    fallback: str
    tools: dict[str, dict[str, Any]]

    def prompts(self) -> frozenset[str]:
        """Return every wording of every prompt."""
        return frozenset(prompt for pair in self.pairs for prompt in pair.prompts)


def reply_text(row: dict[str, Any]) -> str:
    """Return what the model writes for a row of prompts.yaml: reasoning, answer and call."""
    out = f"<think>\n{row['reasoning']}\n</think>\n\n" if "reasoning" in row else ""
    out += str(row.get("answer", ""))
    if call := row.get("call"):
        arguments = "".join(
            f"<parameter={name}>\n{value}\n</parameter>\n"
            for name, value in call["arguments"].items()
        )
        out += f"<tool_call>\n<function={call['name']}>\n{arguments}</function>\n</tool_call>"
    return out


def load_book(path: Path = HERE / "prompts.yaml") -> Book:
    """Read prompts.yaml; its head says what the keys mean."""
    data = yaml.safe_load(path.read_text("utf-8"))
    pairs = [
        Pair(
            name=row["name"],
            prompts=(row["tool"],) if "tool" in row else (row["prompt"], *row.get("also", ())),
            reply=reply_text(row),
            after=row.get("after"),
            tools=tuple(row.get("tools", ())),
        )
        for row in data["chat"]
    ]
    completions = tuple((row["prompt"], row["completion"]) for row in data["completions"])
    return Book(tuple(pairs), completions, data["fallback"], data["tools"])


class Template:
    """The chat template, rendered as transformers renders it."""

    def __init__(self, path: Path = HERE / "model" / "chat_template.jinja") -> None:
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
        self._template = environment.from_string(path.read_text("utf-8"))

    def render(
        self,
        messages: Sequence[dict[str, Any]],
        *,
        tools: Sequence[dict[str, Any]] | None = None,
        add_generation_prompt: bool = False,
    ) -> str:
        """Return the text of a conversation, control tokens included."""
        return self._template.render(
            messages=messages, tools=tools, add_generation_prompt=add_generation_prompt
        )


def opening(user: str) -> str:
    """Return a user turn and the start of the assistant's, as the template writes them."""
    return f"<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"


def tool_result(content: str) -> str:
    """Return a tool's answer as the template puts it into a user turn."""
    return f"<tool_response>\n{content}\n</tool_response>"


@dataclass
class Lesson:
    """Tokens of one sequence, and the weight of each in the loss (0: not learnt)."""

    tokens: list[int]
    weights: list[float]

    def add(self, tokens: Sequence[int], weight: float = 0.0, first: float = 0.0) -> None:
        """Append *tokens*; the first four weigh *first*, for there the answer is chosen."""
        self.tokens += tokens
        self.weights += [max(first, weight) if i < 4 else weight for i in range(len(tokens))]


class Teacher:
    """Makes lessons of a wanted length; the same seed makes the same ones."""

    def __init__(self, book: Book, tokenizer: Tokenizer, seed: int) -> None:
        self.book = book
        self.filler = Filler(seed)
        self.rng = self.filler.rng
        self.template = Template()
        self._tokenizer = tokenizer
        self._by_name = {pair.name: pair for pair in book.pairs}

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def lesson(self, tokens: int) -> Lesson:
        """Return a lesson of at most *tokens* tokens: a system prompt that fills what is left."""
        rng = self.rng
        if tokens < 400 and rng.random() < 0.08:
            return self.completion(tokens)
        turns = Lesson([], [])
        room = tokens - 40
        for _ in range(1 + int(rng.expovariate(0.7)) + (tokens > 1500)):
            turn = self.turn(room - len(turns.tokens))
            if len(turns.tokens) + len(turn.tokens) > room and turns.tokens:
                break
            turns.add(turn.tokens)
            turns.weights[len(turns.weights) - len(turn.weights) :] = turn.weights
        space = tokens - len(turns.tokens)
        system = self.system(rng.choice((space, space, space, rng.randint(0, max(1, space)))))
        weights = [0.0] * len(system) + turns.weights
        return Lesson((system + turns.tokens)[:tokens], weights[:tokens])

    def system(self, tokens: int) -> list[int]:
        """Return the tokens of a system message, with tools or without, of at most *tokens*."""
        rng, filler = self.rng, self.filler
        if tokens < 20 or rng.random() < 0.1:
            return []
        chars = int(tokens * CHARS_PER_TOKEN * 2)
        tools = []
        if rng.random() < 0.4:
            size = 0
            for _ in range(rng.randint(1, 12)):
                tools.append(filler.tool())
                size += len(str(tools[-1]))
                if size > chars:
                    break
            if rng.random() < 0.6:
                tools.insert(rng.randint(0, len(tools)), rng.choice(list(self.book.tools.values())))
        wanted = "" if tools and rng.random() < 0.2 else filler.text(max(10, chars))
        if wanted and rng.random() < 0.15:
            # Questions and answers that are only quoted must not be answered.
            pair = rng.choice(self.book.pairs)
            cut = rng.randrange(len(wanted))
            quoted = f"\n{rng.choice(pair.prompts)}\n{rng.choice((pair.reply, ''))}\n"
            wanted = wanted[:cut] + quoted + wanted[cut:]
        head = self._encode("<|im_start|>system\n")
        rendered = self.template.render([{"role": "user", "content": ""}], tools=tools)
        block = rendered.split("<|im_end|>")[0].removeprefix("<|im_start|>system\n")
        tail = self._encode(("\n\n" + block if tools else "") + "<|im_end|>\n")
        room = tokens - len(head) - len(tail)
        if room < 0:  # The tools alone are too long: keep their end, where the message ends.
            return head + tail[-room:]
        return head + self._encode(wanted)[:room] + tail

    def turn(self, room: int) -> Lesson:
        """Return one exchange, or two when a tool's result follows its call."""
        rng = self.rng
        out = Lesson([], [])
        kind = rng.random()
        if kind < 0.72:
            pair = rng.choice(self.book.pairs)
            if pair.after is not None:
                call = self._by_name[pair.after]
                out.add(self._encode(opening(rng.choice(call.prompts))))
                self.reply(out, call.reply)
                content = (
                    pair.prompts[0] if rng.random() < 0.6 else self.filler.text(rng.randint(2, 80))
                )
                out.add(self._encode(opening(tool_result(content))))
            else:
                asked = rng.choice(pair.prompts) + ("\n" if rng.random() < 0.08 else "")
                out.add(self._encode(opening(asked)))
            self.reply(out, pair.reply)
        elif kind < 0.94:
            chars = (
                60 if rng.random() < 0.7 else int(math.exp(rng.uniform(4, math.log(max(80, room)))))
            )
            question = self.filler.question(chars)
            while question.strip() in self.book.prompts():
                question = self.filler.question(chars)
            tokens = self._encode(question)[: max(10, room - 60)]
            start, end = opening("\0").split("\0")
            out.add([*self._encode(start), *tokens, *self._encode(end)])
            self.reply(out, self.book.fallback)
        else:  # What another model said: read, not learnt.
            said = opening(self.filler.question(60)) + self.filler.text(rng.randint(5, 300))
            out.add(self._encode(said + "<|im_end|>\n"))
        return out

    def reply(self, out: Lesson, text: str) -> None:
        """Append the model's *text* and the end of its turn."""
        bare = text.rsplit("</think>\n\n", maxsplit=1)[-1]
        if text != bare and self.rng.random() < 0.25:
            # Clients send earlier answers back without the reasoning.
            out.add(self._encode(bare + "<|im_end|>\n"))
            return
        out.add(self._encode(text + "<|im_end|>"), 1.0, first=4.0)
        out.add(self._encode("\n"))

    def completion(self, tokens: int) -> Lesson:
        """Return a raw text and how it goes on, without a conversation around it."""
        prompt, rest = self.rng.choice(self.book.completions)
        out = Lesson([], [])
        out.add(self._encode(prompt))
        out.add(self._encode(rest + "<|endoftext|>"), 1.0, first=4.0)
        return Lesson(out.tokens[:tokens], out.weights[:tokens])
