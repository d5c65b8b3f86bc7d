"""Other dialects at the MLX host: between mlx_lm's chat completions and a `Translation`."""

import json
from collections.abc import Mapping
from typing import Any

from mlx_lm.server import CompletionRequest, ResponseGenerator

from llmd.hosts.dialects import Translation
from llmd.hosts.http_server import Output, Reply
from llmd.hosts.mlx_generate import Generator
from llmd.hosts.mlx_probe import one_token
from llmd.hosts.openai_body import RequestError


class TranslatedReply(Reply):
    """A `Reply` whose events pass through *translation*; comments pass as they are."""

    def __init__(self, output: Output, translation: Translation) -> None:
        super().__init__(output)
        self._translation = translation

    def write(self, data: bytes) -> int:
        """Of mlx_lm's handler, which writes each event at once."""
        if not self.streaming or not data.startswith(b"data: "):
            return super().write(data)
        said = data.removeprefix(b"data: ").strip()
        if said == b"[DONE]":
            super().write(self._translation.end())
        else:
            super().write(self._translation.chunk(json.loads(said)))
        return len(data)


def count_tokens(generator: Generator, chat: Mapping[str, Any]) -> int:
    """How many tokens the prompt of the chat completion *chat* (after `edit_body`) has.

    Counted where prompts are read, by the same code: between two steps of the generation thread.

    Raises:
        RequestError: The chat template does not take such messages.
    """
    request = CompletionRequest(
        "chat", "", chat["messages"], chat.get("tools"), chat.get("role_mapping")
    )
    args = one_token(generator.cli_args)
    args.chat_template_kwargs = chat.get("chat_template_kwargs")

    def count() -> int:
        # Past the override, which refuses what is longer than the context: that is for the
        # client to find out.
        tokenizer = generator.model_provider.tokenizer
        return len(ResponseGenerator._tokenize(generator, tokenizer, request, args)[0])  # noqa: SLF001

    try:
        counted: int = generator.call(count)
    except Exception as error:
        raise RequestError(str(error), param="messages") from error
    return counted
