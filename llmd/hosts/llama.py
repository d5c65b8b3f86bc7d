"""The llama host: llama.cpp's own server, in this process, by way of xllamacpp.

Options of the launch:

| key | meaning |
|---|---|
| `model` | path of the GGUF file (the first one when split) |
| `context` | tokens that every sequence may use |
| `parallel` | concurrent sequences |
| `prompt_cache_bytes` | bound of the cache of earlier prompts, beside the sequences' own |
| `draft_model` | path of a small GGUF for speculative decoding |
| `projector` | path of the GGUF that gives it eyes or ears |
| `saved_prompts_dir` | private directory for prompts that outlive the host; optional |
| `token_bytes` | what a token takes in it |
| `args` | flags of llama-server, as far as `llmd.hosts.llama_flags` knows them |
"""

import http.client
import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Final

from llmd.hosts.engine import LoadError
from llmd.hosts.llama_flags import FlagError, apply_flags
from llmd.hosts.llama_saved import SavedSlots, saved_slots
from llmd.hosts.protocol import Launch
from llmd.hosts.saved_prompts import Allowance
from llmd.hosts.slots import SlotsWatch
from llmd.hosts.sockets import ask


_MIB: Final = 2**20
_SPARE_HTTP_THREADS: Final = 12
"""Beyond one per sequence: a connection that is kept alive occupies a thread of the server."""

_SSE_PING_S: Final = 5

log = logging.getLogger("llmd.host")


class LlamaEngine:
    """See the module; `llmd.hosts.engine.Engine`."""

    holds_interpreter: ClassVar[bool] = True  # xllamacpp's constructor keeps the GIL
    on_death: Callable[[str, int], None]

    def __init__(self, upstream: Path) -> None:
        self._path = upstream
        self._server: Any = None
        self._slots = SlotsWatch(upstream)
        self._saved: SavedSlots | None = None
        self._weights_bytes = 0

    def prepare(self) -> None:
        """Import the module: 80 ms."""
        try:
            import xllamacpp  # noqa: F401
        except ImportError as error:
            raise LoadError(f"xllamacpp cannot be imported: {error}") from error

    def load(self, launch: Launch) -> dict[str, Any]:
        """See `Engine.load`."""
        self.prepare()
        import xllamacpp

        options = launch.options
        weights = Path(options["model"])
        if not weights.is_file():
            raise LoadError(f"{weights} is not a file")
        self._weights_bytes = sum(part.stat().st_size for part in gguf_parts(weights))
        self._saved = saved_slots(options, self._path, version=xllamacpp.__version__)
        params = self._params(xllamacpp, launch)
        began = time.monotonic()
        mask = os.umask(0o177)  # the server makes its socket itself
        try:
            self._server = xllamacpp.Server(params)
        except (RuntimeError, ValueError) as error:
            raise LoadError(f"llama.cpp could not load {weights.name}; its log says why") from error
        finally:
            os.umask(mask)
        self._probe(
            embeds=params.embedding,
            ranks=params.pooling_type == xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK,
            timeout_s=launch.load_timeout_s,
        )
        log.info("loaded %s in %.2f s", launch.profile, time.monotonic() - began)
        if self._saved is not None:
            self._saved.restore()
        return {"path": os.fspath(self._path)}

    def progress(self) -> float | None:
        """Unknown: nothing of ours runs during a load."""
        return None

    def status(self) -> dict[str, Any]:
        """See `Engine.status`. The server's own buffers show in the process's memory alone."""
        return {"memory": {"weights_bytes": self._weights_bytes}, "in_flight": None}

    def pulse(self) -> dict[str, Any]:
        """See `Engine.pulse`."""
        return self._slots.look() if self._server is not None else {}

    def trim(self) -> int:
        """Nothing: llama.cpp gives no way to empty its prompt cache."""
        return 0

    def save(self, allowance: Allowance) -> None:
        """See `Engine.save`."""
        if self._saved is not None:
            self._saved.save(allowance)

    def stop(self, *, attended: bool) -> None:
        """Nothing outlives this process."""

    def _params(self, xllamacpp: Any, launch: Launch) -> Any:
        options = launch.options
        parallel = int(options["parallel"])
        params = xllamacpp.CommonParams()
        params.model.path = os.fspath(options["model"])
        params.model_alias = {launch.profile}
        params.hostnames = [os.fspath(self._path)]
        params.n_parallel = parallel
        params.n_ctx = int(options["context"]) * parallel  # divided among the sequences
        params.kv_unified = False
        params.cache_ram_mib = int(options["prompt_cache_bytes"]) // _MIB
        params.n_threads_http = parallel + _SPARE_HTTP_THREADS
        params.fit_params = False  # what fits is decided by llmd, before the load
        params.ui = False
        params.endpoint_slots = True
        params.endpoint_metrics = True
        params.endpoint_props = False
        params.cors_origins = ""
        params.warmup = True
        # Even so `server_queue::start_loop` wakes up once a second, to see whether it may sleep
        # yet: the one wake-up of an idle host. Only unloading the weights would stop it.
        params.sleep_idle_seconds = -1
        params.models_autoload = False
        params.sse_ping_interval = _SSE_PING_S
        params.reasoning_format = xllamacpp.common_reasoning_format.COMMON_REASONING_FORMAT_DEEPSEEK
        params.verbosity = 1  # errors: its warnings quote what clients send
        if (draft := options.get("draft_model")) is not None:
            params.speculative.draft.mparams.path = os.fspath(draft)
            params.speculative.types = [
                xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE
            ]
        if (projector := options.get("projector")) is not None:
            params.mmproj.path = os.fspath(projector)
        if self._saved is not None:
            # It wants a final slash.
            params.slot_save_path = os.path.join(self._saved.directory, "")  # noqa: PTH118
        try:
            apply_flags(xllamacpp, params, options.get("args", ()))
        except FlagError as error:
            raise LoadError(f"args: {error}") from error
        if params.embedding:
            # Texts that are computed together get each other's share of a mean, where every
            # sequence has a cache of its own: seen with xllamacpp 2026.10, 0.79 beside the right.
            params.kv_unified = True
        pooling = xllamacpp.llama_pooling_type
        if (
            params.embedding
            and params.pooling_type == pooling.LLAMA_POOLING_TYPE_UNSPECIFIED
            and not _names_pooling(Path(options["model"]))
        ):
            params.pooling_type = pooling.LLAMA_POOLING_TYPE_MEAN  # none would be refused
        return params

    def _probe(self, *, embeds: bool, ranks: bool, timeout_s: float) -> None:
        """One token, or one vector, through the very socket that clients' requests will take."""
        body: dict[str, Any]
        if ranks:
            path, body = "/v1/rerank", {"query": "a", "documents": ["a"]}
        elif embeds:
            path, body = "/v1/embeddings", {"input": "a"}
        else:
            path, body = "/v1/completions", {"prompt": "a", "max_tokens": 1, "cache_prompt": False}
        try:
            status, answer = ask(self._path, "POST", path, body, timeout_s=timeout_s)
        except (OSError, http.client.HTTPException) as error:
            raise LoadError(f"llama.cpp loaded, but does not answer: {error!r}") from error
        if status != http.HTTPStatus.OK:
            raise LoadError(f"llama.cpp loaded, but answers {path} with {status}: {answer[:300]}")


def gguf_parts(first: Path) -> list[Path]:
    """All files of a model that may be split (`…-00001-of-00003.gguf`)."""
    split = re.fullmatch(r"(.*)-\d{5}-of-(\d{5})\.gguf", first.name)
    if split is None:
        return [first]
    stem, count = split[1], split[2]
    parts = [first.with_name(f"{stem}-{n + 1:05}-of-{count}.gguf") for n in range(int(count))]
    if missing := [part.name for part in parts if not part.is_file()]:
        raise LoadError(f"parts of the model are missing: {', '.join(missing)}")
    return parts


def _names_pooling(weights: Path) -> bool:
    """Whether the file says how its vectors are made of its tokens' (its settings come first)."""
    with weights.open("rb") as file:
        return b".pooling_type" in file.read(65536)
