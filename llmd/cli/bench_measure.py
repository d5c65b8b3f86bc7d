"""Measuring one profile, through its own port, as any client would find it."""

import threading
from collections.abc import Callable, Iterator
from typing import Any, Final

from llmd.admin import wire
from llmd.admin.client import AdminClient
from llmd.cli import asking
from llmd.cli.bench_result import Result, Sample
from llmd.cli.tally import Tally
from llmd.errors import LlmdError


SHORT_TOKENS: Final = 200
LONG_TOKENS: Final = 500
_CONTEXT_TOKENS: Final = 4096
"""Assumed of an engine that does not tell its own."""
_SHARE_OF_CONTEXT: Final = 4
"""An answer takes at most a quarter of a small context; the long prompt at most half of it."""
_LONG_PROMPT_BYTES: Final = 8000
_SHORT_PROMPT: Final = "Write a story about a lighthouse keeper who repairs an old radio."
_LONG_PROMPT: Final = (
    "The keeper climbed the stairs, wound the clock, looked over the water and noted the wind. "
)


class NoTokenError(LlmdError):
    """An answer ended before its first token: there is nothing to measure."""

    code = "no_token"


class Measurement:
    """Measures *profile* at *address*, and fills in *result* as it goes.

    Each prompt begins with a number of its own, so that no engine knows it from before.
    """

    def __init__(
        self,
        client: AdminClient,
        profile: wire.Profile,
        address: asking.Address,
        result: Result,
        repeats: int,
    ) -> None:
        self._client = client
        self._profile = profile
        self._address = address
        self._result = result
        self._repeats = repeats
        self._asked = 0

    @property
    def steps(self) -> int:
        """How often `run` tells where it is."""
        kinds = 4 if self._result.at_once > 1 else 3
        return (1 if self._may_be_cold else 0) + kinds * self._repeats

    @property
    def _may_be_cold(self) -> bool:
        """Whether llmd loads it at all: a remote one is others' business."""
        return self._profile.engine != "remote"

    def run(self) -> Iterator[str]:
        """Measure; yields what comes next, before each step.

        Raises:
            LlmdError: A step failed; what came before is in the result.
        """
        result = self._result
        if self._may_be_cold:
            yield "cold"
            self._client.unload(self._profile.name)
            result.cold = self._sample(SHORT_TOKENS)
        for kind, take in self._kinds():
            for number in range(1, self._repeats + 1):
                yield f"{kind} {number} of {self._repeats}"
                take()
        now = self._client.profiles()
        result.memory_bytes = next(
            (p.measured_bytes for p in now if p.name == self._profile.name), 0
        )

    def _kinds(self) -> Iterator[tuple[str, Callable[[], None]]]:
        result = self._result
        yield "short", lambda: result.short.append(self._sample(SHORT_TOKENS))
        yield "long", lambda: result.long.append(self._sample(LONG_TOKENS))
        yield "prefill", lambda: result.prefill.append(self._sample(1, self._long_prompt()))
        if result.at_once > 1:
            together = f"{result.at_once} at once"
            yield together, lambda: result.together_per_s.append(self._together())

    def _sample(self, tokens: int, prompt: str = _SHORT_PROMPT) -> Sample:
        return Sample.of(self._answer(self._request(tokens, prompt)))

    def _answer(self, request: dict[str, Any]) -> Tally:
        """One answer to its end.

        Raises:
            NoTokenError: It had no token.
            LlmdError: The port or the engine failed.
        """
        tally = Tally()
        with asking.ask(self._address, request) as response:
            for event in asking.events(response, lambda _: None):
                for _ in tally.take(event):
                    pass
        if tally.first_s is None:
            raise NoTokenError(
                f"{self._profile.name} answered nothing",
                remedy="ask it with `llmd-ctl query`; is it a chat model?",
            )
        return tally

    def _together(self) -> float:
        """Tokens per second in all, from the first token of the first answer to the last."""
        requests = [self._request(SHORT_TOKENS, _SHORT_PROMPT) for _ in range(self._result.at_once)]
        tallies: list[Tally] = []
        failures: list[BaseException] = []

        def answer(request: dict[str, Any]) -> None:
            try:
                tallies.append(self._answer(request))
            except BaseException as error:  # noqa: BLE001  # raised below
                failures.append(error)

        # Daemon threads: after Ctrl-C nobody waits for them, and the exit closes their connections,
        # which ends the engine's work.
        threads = [threading.Thread(target=answer, args=(r,), daemon=True) for r in requests]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        begin_s = min(tally.first_s for tally in tallies if tally.first_s is not None)
        lasted_s = max(tally.ended_s for tally in tallies) - begin_s
        return sum(tally.tokens for tally in tallies) / max(lasted_s, 1e-6)

    def _request(self, tokens: int, prompt: str) -> dict[str, Any]:
        self._asked += 1
        context = self._profile.context or _CONTEXT_TOKENS
        request = {
            "model": self._profile.name,
            "messages": [{"role": "user", "content": f"{self._asked}. {prompt}"}],
            "max_tokens": min(tokens, max(1, context // _SHARE_OF_CONTEXT)),
            "temperature": 0,
        }
        if self._profile.engine == "llama.cpp":
            request["ignore_eos"] = True
        return asking.streamed(request)

    def _long_prompt(self) -> str:
        """So long that it surely fits: a token has at least one byte."""
        context = self._profile.context or _CONTEXT_TOKENS
        size = min(_LONG_PROMPT_BYTES, context // 2)
        return (_LONG_PROMPT * (size // len(_LONG_PROMPT) + 1))[:size]
