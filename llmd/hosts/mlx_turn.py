"""One request's way through mlx_lm: what its handler takes for the generator meanwhile."""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

from llmd.hosts.dialects import Translation
from llmd.hosts.mlx_generate import Generator, tokens


_KEEPALIVE_S: Final = 5.0
"""A stream that is silent for so long gets a comment."""

_TAIL_TOKENS: Final = 64
"""Stop words are looked for among so many last tokens."""


class Client(Protocol):
    """Who asked: a handler."""

    hung_up: bool
    on_hangup: Callable[[], None] | None

    def keep_alive(self) -> None:
        """Nothing has come for a while."""


class Turn:
    """What mlx_lm's handler takes for its generator during one request.

    Attributes:
        error: Why the generator refused the request, if it did.
    """

    def __init__(
        self, client: Client, generator: Generator, translation: Translation | None
    ) -> None:
        self.cli_args = generator.cli_args
        self.error: Exception | None = None
        self._client = client
        self._generator = generator
        self._translation = translation

    def generate(
        self,
        request: Any,
        args: Any,
        progress_callback: Callable[[int, int], None] | None = None,
    ) -> tuple[Any, Iterator[Any]]:
        """As `ResponseGenerator.generate`: the context, and an iterator over tokens."""
        inbox = self._generator.submit(request, args)
        self._client.on_hangup = inbox.cancel
        if self._client.hung_up:  # before there was anything to cancel
            inbox.cancel()
        try:
            context = inbox.get()
        except Exception as error:
            self.error = error
            raise
        rest = tokens(
            inbox,
            on_progress=progress_callback,
            on_silence=self._client.keep_alive,
            silence_s=_KEEPALIVE_S,
        )
        return context, self._watch(rest, context, args.stop_words)

    def _watch(self, rest: Iterator[Any], context: Any, words: list[str]) -> Iterator[Any]:
        """Pass *rest* on, up to the first of the stop *words*; tell the translation what happens.

        mlx_lm compares tokens, and a word can be cut into others than it is by itself: then it only
        takes the word out of the text and goes on.
        """
        stops = StopWords(words, self._generator.model_provider.tokenizer)
        translation, fresh = self._translation, True
        for response in rest:
            if translation is not None and fresh:
                translation.begun(len(context.prompt), context.prompt_cache_count)
                fresh = False
            word = stops.found_in(response) if words else None
            if word is not None and translation is not None:
                translation.stopped_at(word)
            yield response
            if word is not None:
                context.stop()
                return


class StopWords:
    """Finds where an answer comes to one of its stop words."""

    def __init__(self, words: list[str], tokenizer: Any) -> None:
        self._words = words
        self._tokenizer = tokenizer
        self._longest = max(map(len, words), default=0)
        self._text = ""
        """The end of what was said, where a word may have begun."""
        self._tokens: deque[int] = deque(maxlen=_TAIL_TOKENS)

    def found_in(self, response: Any) -> str | None:
        """The word that *response* ends with, once it has been cut behind it; mostly None."""
        self._tokens.append(response.token)
        if response.finish_reason == "stop":
            if response.token in self._tokenizer.eos_token_ids:
                return None
            said = self._tokenizer.decode(list(self._tokens))
            return max(self._words, key=said.rfind)  # its last token is in no text
        before = len(self._text)
        said = self._text + response.text
        places = [(said.find(word), word) for word in self._words if word in said]
        if not places:
            self._text = said[1 - self._longest :] if self._longest > 1 else ""
            return None
        at, word = min(places)
        response.text = said[before : at + len(word)]
        return word
