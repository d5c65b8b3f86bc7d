"""mlx_lm's generation, made quiet when idle, cancellable while it waits, and bound to one model.

The classes below are mlx_lm.server's own with their seams filled; what they generate, and how, is
mlx_lm's business. Weights and caches are touched on the generation thread alone.
"""

import concurrent.futures
import gc
import logging
import queue
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Final

import mlx.core as mx
from mlx_lm.server import (
    CompletionRequest,
    GenerationArguments,
    GenerationContext,
    ModelProvider,
    Response,
    ResponseGenerator,
    TimeBudget,
)

from llmd.hosts.mlx_caches import PromptCache
from llmd.hosts.mlx_probe import one_token


_LOOK_EVERY_S: Final = 0.05
_XTC_THRESHOLD_MAX: Final = 0.5
_SURVIVABLE: Final = (ValueError, TypeError, LookupError, ArithmeticError)
"""What Python code raises over a request; the device's failures are RuntimeErrors."""

_TIDY_AFTER_S: Final = 5.0
"""Idle for so long, buffers kept for reuse go back to the system; once, then it sleeps for good."""


log = logging.getLogger("llmd.host")


class CancelledError(Exception):
    """The client is gone."""


class EngineFailedError(RuntimeError):
    """Generation broke down under a request; the model is still there."""


class ContextExceededError(ValueError):
    """The prompt leaves no room for an answer."""

    def __init__(self, prompt_tokens: int, context_tokens: int) -> None:
        super().__init__(
            f"the prompt has {prompt_tokens} tokens, and the context of this model holds "
            f"{context_tokens}, the answer included"
        )


class Provider(ModelProvider):  # type: ignore[misc]
    """The one model of this process, whatever a request asks for."""

    def load_default(self) -> None:
        """Load it, once; on the generation thread."""
        if self.model is None:
            self._load(self.cli_args.model, self.cli_args.adapter_path, self.cli_args.draft_model)

    @property
    def vocabulary(self) -> int:
        """How many tokens the model knows; the tokenizer may name fewer."""
        config = getattr(self.model, "args", None)
        return int(getattr(config, "vocab_size", None) or self.tokenizer.vocab_size)

    def load(self, *_args: Any, **_options: Any) -> tuple[Any, Any]:
        """The resident model and its tokenizer."""
        return self.model, self.tokenizer


class Inbox:
    """What the generation thread has for one request; takes the place of mlx_lm's queue."""

    def __init__(self, on_item: Callable[[Any], None]) -> None:
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._on_item = on_item
        self._context: GenerationContext | None = None
        self.cancelled = False
        self.alone = False
        """Whether the request is served by itself, outside of a batch."""

    def put(self, item: Any) -> None:
        """Called by mlx_lm on its generation thread."""
        if isinstance(item, GenerationContext):
            self._context = item
            if self.cancelled:
                item.stop()
        elif self.cancelled and self.alone and isinstance(item, tuple):
            # Progress of a prefill. A batch looks at the context's stop mark between two steps;
            # a request by itself does not before its first token, unless its callback raises.
            raise CancelledError
        self._on_item(item)
        self._queue.put(item)

    def cancel(self) -> None:
        """Nobody wants the answer any more; from any thread."""
        self.cancelled = True
        if self._context is not None:
            self._context.stop()
        self._queue.put(CancelledError())

    def fail(self, error: Exception) -> None:
        """Nothing more will come; from the generation thread."""
        self.cancelled = True
        self._queue.put(error)

    def get(self, timeout_s: float | None = None) -> Any:
        """The next item.

        Raises:
            CancelledError: See `cancel`.
            queue.Empty: Nothing came for *timeout_s*.
            Exception: Whatever mlx_lm ran into.
        """
        item = self._queue.get(timeout=timeout_s)
        if isinstance(item, Exception):
            raise item
        return item


class Generator(ResponseGenerator):  # type: ignore[misc]
    """Runs requests on the generation thread, batched where mlx_lm can.

    *loaded* is settled by that thread: None, or why the model could not be loaded. *on_death* is
    called when the device fails later, which nothing but a new process can mend. What a request
    alone can provoke, such as a parameter that mlx_lm checks too late, ends the requests in flight.
    """

    def __init__(
        self,
        provider: Provider,
        prompt_cache: PromptCache,
        *,
        context_tokens: int,
        on_death: Callable[[BaseException], None],
    ) -> None:
        self.loaded: concurrent.futures.Future[None] = concurrent.futures.Future()
        self.generated_tokens = 0
        self.pieces = 0
        """Of prompts and of answers, that are done."""
        self.resting = False
        """Whether it has none."""
        self._inboxes: weakref.WeakSet[Inbox] = weakref.WeakSet()
        self._context_tokens = context_tokens
        self._on_death = on_death
        super().__init__(provider, prompt_cache)
        # How long a batch runs before it looks for newcomers and for clients that left.
        self._time_budget = TimeBudget(budget=_LOOK_EVERY_S)

    def submit(self, request: CompletionRequest, args: GenerationArguments) -> Inbox:
        """Queue a request; its context comes first out of the inbox, then its tokens, then None."""
        inbox = Inbox(self._count)
        self._inboxes.add(inbox)
        self.requests.put((inbox, request, args))
        return inbox

    def call(self, job: Callable[[], Any]) -> Any:
        """Run *job* on the generation thread, between two steps, and return what it returns."""
        done: concurrent.futures.Future[Any] = concurrent.futures.Future()

        def run() -> None:
            try:
                done.set_result(job())
            except BaseException as error:  # noqa: BLE001 - raised again where it was called for
                done.set_exception(error)

        self.requests.put(run)
        return done.result()

    def complete_one_token(self) -> None:
        """Prove that the model works, and compile what its first request would.

        Raises:
            Exception: It does not.
        """
        inbox = self.submit(
            CompletionRequest("text", "a", [], None, None), one_token(self.cli_args)
        )
        while inbox.get() is not None:
            pass
        self.call(lambda: self.prompt_cache.trim_to(n_sequences=0))

    def stop_and_join(self) -> None:
        """End the generation thread, and wait for it."""
        self._stop = True
        self.requests.put(lambda: None)  # it may be asleep
        self.join()

    def _count(self, item: Any) -> None:
        self.pieces += 1  # on the generation thread alone
        self.generated_tokens += isinstance(item, Response)

    # --- mlx_lm's seams ---------------------------------------------------------------------

    def _run_generate(self) -> None:
        while True:
            try:
                self._generate()
            except _SURVIVABLE as error:
                if not self.loaded.done():
                    self.loaded.set_exception(error)
                    return
                log.exception("generation failed")
                for inbox in tuple(self._inboxes):
                    inbox.fail(EngineFailedError(str(error)))
                continue
            except BaseException as error:  # noqa: BLE001 - the thread's last word
                self._end(error)
            return

    def _end(self, error: BaseException) -> None:
        if self.loaded.done():
            self._generation_failed = True
            self._on_death(error)
        else:
            self.loaded.set_exception(error)

    def _next_request(self, timeout: float | None = None) -> Any:
        """The next request; None when there is none and a batch to go on with.

        mlx_lm passes a *timeout* when it has nothing to do, and polls. Here it sleeps.
        """
        if not self.loaded.done():
            self.loaded.set_result(None)
        while True:
            try:
                item = self.requests.get_nowait() if timeout is None else self._sleep()
            except queue.Empty:
                return None
            if callable(item):
                item()
                if self._stop:
                    return None
            elif not item[0].cancelled:
                return item

    def _sleep(self) -> Any:
        try:
            return self._rest(_TIDY_AFTER_S)
        except queue.Empty:
            release_buffers()
            return self._rest(None)

    def _rest(self, timeout_s: float | None) -> Any:
        self.resting = True
        try:
            return self.requests.get(timeout=timeout_s)
        finally:
            self.resting = False

    def _tokenize(self, tokenizer: Any, request: CompletionRequest, args: Any) -> Any:
        tokenized = super()._tokenize(tokenizer, request, args)
        prompt_tokens = len(tokenized[0])
        if prompt_tokens == 0:
            raise ValueError("the prompt is empty")
        if prompt_tokens >= self._context_tokens:
            raise ContextExceededError(prompt_tokens, self._context_tokens)
        args.max_tokens = min(args.max_tokens, self._context_tokens - prompt_tokens)
        check_sampling(args, self.model_provider.vocabulary)
        return tokenized

    def _serve_single(self, request: Any, stream: Any) -> None:
        request[0].alone = True
        super()._serve_single(request, stream)


def check_sampling(args: GenerationArguments, vocabulary: int) -> None:
    """Refuse, or put right, what mlx_lm would find wrong only in the middle of a batch.

    Raises:
        ValueError: A parameter is out of its range.
    """
    if args.sampling.top_k >= vocabulary:
        args.sampling.top_k = 0  # that many are all of them
    if args.sampling.xtc_threshold > _XTC_THRESHOLD_MAX:
        raise ValueError(f"xtc_threshold must be at most {_XTC_THRESHOLD_MAX}")
    for token in args.logits.logit_bias or ():
        if not 0 <= token < vocabulary:  # mlx would write there all the same
            raise ValueError(f"logit_bias names {token}, which is not a token of this model")


def release_buffers() -> None:
    """Give memory that is kept for reuse back to the system."""
    gc.collect()
    mx.clear_cache()


def tokens(
    inbox: Inbox,
    *,
    on_progress: Callable[[int, int], None] | None,
    on_silence: Callable[[], None],
    silence_s: float,
) -> Iterator[Any]:
    """What *inbox* brings after the context, as mlx_lm's handler wants it.

    *on_silence* is called whenever nothing came for *silence_s*.
    """
    while True:
        try:
            item = inbox.get(silence_s)
        except queue.Empty:
            on_silence()
            continue
        if item is None:
            return
        if not isinstance(item, tuple):
            yield item
        elif on_progress is not None:
            on_progress(*item)
