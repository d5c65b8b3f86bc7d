"""The MLX host: one model on mlx_lm.server's classes, in this process.

Options of the launch:

| key | meaning |
|---|---|
| `model` | directory of the weights |
| `context` | tokens of a prompt and its answer together |
| `parallel` | sequences decoded together |
| `prompt_cache_bytes` | bound of the cache of earlier prompts; a longer one is not kept at all |
| `draft_model` | directory of a small model for speculative decoding; turns batching off |
| `adapters` | directory of LoRA adapters |
| `saved_prompts_dir` | private directory for prompts that outlive the host; optional |
| `buffer_cache_bytes` | bound of freed buffers that MLX keeps for reuse |
| `args` | flags of mlx_lm.server, as far as `parse_flags` knows them |
"""

import argparse
import contextlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn

from llmd.hosts.engine import EXIT_ENGINE_DIED, LoadError
from llmd.hosts.http_server import serve
from llmd.hosts.protocol import Launch
from llmd.hosts.saved_prompts import Allowance
from llmd.hosts.sockets import listen


if TYPE_CHECKING:
    from llmd.hosts.mlx_generate import Generator
    from llmd.hosts.mlx_http import Service
    from llmd.hosts.mlx_saved import SavedStates


BUFFER_CACHE_BYTES: Final = 2**30

_OFFLINE: Final = {
    "HF_HUB_OFFLINE": "1",  # weights are found by the daemon; nothing here may fetch any
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "true",
}
_PROMPT_CACHE_ENTRIES: Final = 64
_PREFILL_TOGETHER: Final = 8

log = logging.getLogger("llmd.host")


class MlxEngine:
    """See the module; `llmd.hosts.engine.Engine`."""

    holds_interpreter: ClassVar[bool] = False
    on_death: Callable[[str, int], None]

    def __init__(self, upstream: Path) -> None:
        self._path = upstream
        self._generator: Generator | None = None
        self._service: Service | None = None
        self._weights_bytes = 0
        self._mx: Any = None

    def prepare(self) -> None:
        """Import mlx_lm and what it uses first, and run a first operation: two seconds of CPU."""
        os.environ.update(_OFFLINE)
        try:
            import mlx.core as mx

            import llmd.hosts.mlx_http  # noqa: F401 - and with it all of mlx_lm.server
        except ImportError as error:
            raise LoadError(f"mlx_lm cannot be imported: {error}") from error
        # The first operation finds the device and, on a GPU, loads the kernels.
        mx.eval(mx.ones((32, 32)) @ mx.ones((32, 32)))
        self._mx = mx

    def load(self, launch: Launch) -> dict[str, Any]:
        """See `Engine.load`."""
        options = launch.options
        directory = _model_directory(Path(options["model"]))
        args = parse_flags(launch)
        self._weights_bytes = sum(f.stat().st_size for f in directory.glob("*.safetensors"))
        self.prepare()
        from mlx_lm.utils import maybe_set_recommended_wired_limit

        from llmd.hosts.mlx_caches import PromptCache
        from llmd.hosts.mlx_generate import Generator, Provider
        from llmd.hosts.mlx_http import Service

        began = time.monotonic()
        self._mx.set_cache_limit(int(options.get("buffer_cache_bytes", BUFFER_CACHE_BYTES)))
        maybe_set_recommended_wired_limit()
        cache = PromptCache(
            _PROMPT_CACHE_ENTRIES, int(options["prompt_cache_bytes"]), _saved(options)
        )
        self._generator = generator = Generator(
            Provider(args), cache, context_tokens=int(options["context"]), on_death=self._died
        )
        with _reporting(f"mlx_lm cannot load {directory.name}"):
            generator.loaded.result(launch.load_timeout_s)
        embedder = None
        if args.embeddings:
            from llmd.hosts.mlx_embed import Embedder, pooling_of

            pooling = pooling_of(directory, args.pooling)
            embedder = Embedder(generator, pooling, int(options["context"]))
        with _reporting(f"{directory.name} loads, but does not work"):
            if embedder is None:
                generator.complete_one_token()
            else:
                embedder.probe()
        self._service = Service(launch.profile, int(options["context"]), generator, embedder)
        listener = listen(self._path)
        threading.Thread(
            target=serve, args=(listener, self._service.handle), name="accept", daemon=True
        ).start()
        log.info("loaded %s in %.2f s", launch.profile, time.monotonic() - began)
        return {"path": os.fspath(self._path)}

    def progress(self) -> float | None:
        """By the bytes that MLX holds, of those in the files."""
        if self._mx is None or not self._weights_bytes:
            return None
        return min(float(self._mx.get_active_memory()) / self._weights_bytes, 1.0)

    def status(self) -> dict[str, Any]:
        """See `Engine.status`."""
        memory = {"weights_bytes": self._weights_bytes}
        if self._mx is not None:
            memory["active_bytes"] = self._mx.get_active_memory()
            memory["cache_bytes"] = self._mx.get_cache_memory()
            memory["peak_bytes"] = self._mx.get_peak_memory()
        status: dict[str, Any] = {"memory": memory, "in_flight": 0}
        if self._service is not None:
            memory["prompt_cache_bytes"] = self._service.generator.prompt_cache.nbytes
            status["in_flight"] = self._service.in_flight
            status["generated_tokens"] = self._service.generator.generated_tokens
        return status

    def pulse(self) -> dict[str, Any]:
        """See `Engine.pulse`.

        The bytes that MLX holds change with each piece of work, also where mlx_lm itself tells of
        no progress: a prompt beside a draft model, a text of which a vector is made.
        """
        if self._generator is None:
            return {}
        generator, mx = self._generator, self._mx
        held = (mx.get_active_memory(), mx.get_cache_memory())
        return {
            "progress": f"{generator.pieces} {held}",
            "resting": generator.resting,
        }

    def trim(self) -> int:
        """See `Engine.trim`."""
        if self._generator is None:
            return 0
        from llmd.hosts.mlx_generate import release_buffers

        generator, mx = self._generator, self._mx

        def drop() -> int:
            before = mx.get_active_memory() + mx.get_cache_memory()
            generator.prompt_cache.trim_to(n_sequences=0)
            release_buffers()
            return int(before - mx.get_active_memory() - mx.get_cache_memory())

        return max(int(generator.call(drop)), 0)

    def save(self, allowance: Allowance) -> None:
        """See `Engine.save`."""
        if self._generator is not None:
            generator = self._generator
            generator.call(lambda: generator.prompt_cache.save(allowance))

    def stop(self, *, attended: bool) -> None:
        """Nothing outlives this process."""

    def _died(self, error: BaseException) -> None:
        log.error("the generation thread died", exc_info=error)
        self.on_death(f"generation failed: {error}", EXIT_ENGINE_DIED)


def _saved(options: Mapping[str, Any]) -> "SavedStates | None":
    """The prompts that earlier hosts of this profile left; None when none are kept."""
    directory = options.get("saved_prompts_dir")
    if directory is None:
        return None
    import mlx_lm

    from llmd.hosts.mlx_saved import SavedStates

    try:
        return SavedStates(Path(directory) / f"mlx_lm-{mlx_lm.__version__}")
    except OSError as error:
        log.warning("prompts are not saved: %s", error)
        return None


@contextlib.contextmanager
def _reporting(what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        log.exception("load failed")
        raise LoadError(f"{what}: {type(error).__name__}: {error}") from error


def _model_directory(path: Path) -> Path:
    if not path.is_dir():
        raise LoadError(f"{path} is not a directory; MLX weights are a directory of safetensors")
    if not (path / "config.json").is_file():
        raise LoadError(f"{path} has no config.json, so it holds no model that MLX can load")
    if not any(path.glob("*.safetensors")):
        raise LoadError(f"{path} has no .safetensors files; is the download complete?")
    return path


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise LoadError(f"args: {message}")


def _json_object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("not a JSON object")
    return value


def parse_flags(launch: Launch) -> argparse.Namespace:
    """What mlx_lm.server would have parsed from its command line.

    Raises:
        LoadError: A flag is unknown, or belongs to the profile's own keys.
    """
    options = launch.options
    context, parallel = int(options["context"]), int(options["parallel"])
    parser = _Parser(prog="mlx_lm.server", add_help=False, allow_abbrev=False)
    number = parser.add_argument
    number("--temp", type=float, default=0.0)
    number("--top-p", type=float, default=1.0)
    number("--top-k", type=int, default=0)
    number("--min-p", type=float, default=0.0)
    number("--max-tokens", type=int, default=context)
    number("--num-draft-tokens", type=int, default=3)
    number("--prompt-concurrency", type=int, default=_PREFILL_TOGETHER)
    number("--prefill-step-size", type=int, default=2048)
    number("--kv-bits", type=int, default=None)
    number("--kv-group-size", type=int, default=64)
    number("--quantized-kv-start", type=int, default=5000)
    parser.add_argument("--chat-template", default="")
    parser.add_argument("--chat-template-args", type=_json_object, default={})
    parser.add_argument("--use-default-chat-template", action="store_true")
    parser.add_argument("--trust-remote-code", action="store_true")
    parser.add_argument("--embeddings", "--embedding", action="store_true")
    parser.add_argument("--pooling", choices=["last", "mean"], default=None)
    words: Sequence[str] = options.get("args", ())
    args = parser.parse_args(list(words))
    args.profile = launch.profile
    args.model = os.fspath(options["model"])
    args.adapter_path = options.get("adapters")
    args.draft_model = options.get("draft_model")
    args.decode_concurrency = parallel
    args.prompt_concurrency = min(args.prompt_concurrency, parallel)
    args.prompt_cache_bytes = None  # PromptCache bounds itself, apart from what is in use
    args.pipeline = False
    args.allowed_origins = []
    return args
