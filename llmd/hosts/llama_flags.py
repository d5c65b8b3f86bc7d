"""Flags of llama-server, as settings of xllamacpp, which has no parser of its own."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple


class FlagError(ValueError):
    """A flag that llmd cannot pass on to xllamacpp, or a value that it does not take."""


class _Flag(NamedTuple):
    """Where a flag's value goes, and how it is read. *fixed*: the flag takes no value."""

    attribute: str
    read: Callable[[str], Any] = str
    enum: tuple[str, str] | None = None
    fixed: Any = None


def _enum(attribute: str, name: str, prefix: str) -> _Flag:
    return _Flag(attribute, enum=(name, prefix))


def _switch(attribute: str, *, on: bool = True) -> _Flag:
    return _Flag(attribute, fixed=on)


def _floats(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


_KV: Final = ("ggml_type", "GGML_TYPE_")
_LOAD: Final = ("llama_load_mode", "LLAMA_LOAD_MODE_")

_FLAGS: Final[dict[str, _Flag]] = {
    "--gpu-layers": _Flag("n_gpu_layers", int),
    "--main-gpu": _Flag("main_gpu", int),
    "--split-mode": _enum("split_mode", "llama_split_mode", "LLAMA_SPLIT_MODE_"),
    "--tensor-split": _Flag("tensor_split", _floats),
    "--override-tensor": _Flag("tensor_buft_overrides"),
    "--threads": _Flag("cpuparams.n_threads", int),
    "--threads-batch": _Flag("cpuparams_batch.n_threads", int),
    "--numa": _enum("numa", "ggml_numa_strategy", "GGML_NUMA_STRATEGY_"),
    "--batch-size": _Flag("n_batch", int),
    "--ubatch-size": _Flag("n_ubatch", int),
    "--cache-type-k": _Flag("cache_type_k", enum=_KV),
    "--cache-type-v": _Flag("cache_type_v", enum=_KV),
    "--cache-reuse": _Flag("n_cache_reuse", int),
    "--kv-unified": _switch("kv_unified"),
    "--no-kv-offload": _switch("no_kv_offload"),
    "--no-op-offload": _switch("no_op_offload"),
    "--swa-full": _switch("swa_full"),
    "--context-shift": _switch("ctx_shift"),
    "--no-mmap": _Flag("load_mode", enum=_LOAD, fixed="none"),
    "--mlock": _Flag("load_mode", enum=_LOAD, fixed="mmap_mlock"),
    "--no-warmup": _switch("warmup", on=False),
    "--no-cont-batching": _switch("cont_batching", on=False),
    "--check-tensors": _switch("check_tensors"),
    "--rope-scaling": _enum(
        "rope_scaling_type", "llama_rope_scaling_type", "LLAMA_ROPE_SCALING_TYPE_"
    ),
    "--rope-freq-base": _Flag("rope_freq_base", float),
    "--rope-freq-scale": _Flag("rope_freq_scale", float),
    "--yarn-orig-ctx": _Flag("yarn_orig_ctx", int),
    "--yarn-ext-factor": _Flag("yarn_ext_factor", float),
    "--yarn-attn-factor": _Flag("yarn_attn_factor", float),
    "--embeddings": _switch("embedding"),
    "--pooling": _enum("pooling_type", "llama_pooling_type", "LLAMA_POOLING_TYPE_"),
    "--jinja": _switch("use_jinja"),
    "--no-jinja": _switch("use_jinja", on=False),
    "--chat-template": _Flag("chat_template"),
    "--chat-template-file": _Flag("chat_template", lambda name: Path(name).read_text()),
    "--reasoning-budget": _Flag("sampling.reasoning_budget_tokens", int),
    "--predict": _Flag("n_predict", int),
    "--temp": _Flag("sampling.temp", float),
    "--top-k": _Flag("sampling.top_k", int),
    "--top-p": _Flag("sampling.top_p", float),
    "--min-p": _Flag("sampling.min_p", float),
    "--repeat-penalty": _Flag("sampling.penalty_repeat", float),
    "--presence-penalty": _Flag("sampling.penalty_present", float),
    "--frequency-penalty": _Flag("sampling.penalty_freq", float),
    "--seed": _Flag("sampling.seed", int),
    "--draft-max": _Flag("speculative.draft.n_max", int),
    "--draft-min": _Flag("speculative.draft.n_min", int),
    "--draft-p-min": _Flag("speculative.draft.p_min", float),
    "--gpu-layers-draft": _Flag("speculative.draft.n_gpu_layers", int),
    "--slot-prompt-similarity": _Flag("slot_prompt_similarity", float),
    "--verbosity": _Flag("verbosity", int),
}

_ALIASES: Final = {
    "-ngl": "--gpu-layers",
    "--n-gpu-layers": "--gpu-layers",
    "-mg": "--main-gpu",
    "-sm": "--split-mode",
    "-ts": "--tensor-split",
    "-ot": "--override-tensor",
    "-t": "--threads",
    "-tb": "--threads-batch",
    "-b": "--batch-size",
    "-ub": "--ubatch-size",
    "-ctk": "--cache-type-k",
    "-ctv": "--cache-type-v",
    "-kvu": "--kv-unified",
    "-nkvo": "--no-kv-offload",
    "-nocb": "--no-cont-batching",
    "--embedding": "--embeddings",
    "--rerank": "--reranking",
    "-n": "--predict",
    "--n-predict": "--predict",
    "--temperature": "--temp",
    "-s": "--seed",
    "--draft": "--draft-max",
    "--draft-n": "--draft-max",
    "-ngld": "--gpu-layers-draft",
    "-sps": "--slot-prompt-similarity",
    "-lv": "--verbosity",
    "-fa": "--flash-attn",
}

_TRUTHS: Final = {"on": "enabled", "true": "enabled", "1": "enabled", "off": "disabled"}


def apply_flags(module: Any, params: Any, words: Iterable[str]) -> None:
    """Set on *params*, a `CommonParams` of *module* (xllamacpp), what *words* ask for.

    Raises:
        FlagError: A flag has no counterpart here, or its value is wrong.
    """
    rest = [part for word in words for part in _halves(word)]
    while rest:
        word = rest.pop(0)
        name = _ALIASES.get(word, word)
        if name == "--flash-attn":
            value = rest.pop(0) if rest and not rest[0].startswith("-") else "on"
            value = _TRUTHS.get(value, value)
            _set(module, params, name, _FLASH, value)
        elif name == "--reranking":
            _set(module, params, name, _FLAGS["--embeddings"], None)
            _set(module, params, name, _FLAGS["--pooling"], "rank")
        elif (flag := _FLAGS.get(name)) is None:
            raise FlagError(
                f"the runner xllamacpp does not know {word}; "
                "use `runner: llama-server` for flags beyond the common ones"
            )
        elif flag.fixed is not None:
            _set(module, params, name, flag, None)
        elif not rest:
            raise FlagError(f"{word} wants a value")
        else:
            _set(module, params, name, flag, rest.pop(0))


_FLASH: Final = _enum("flash_attn_type", "llama_flash_attn_type", "LLAMA_FLASH_ATTN_TYPE_")


def _halves(word: str) -> list[str]:
    name, equals, value = word.partition("=")
    return [name, value] if equals and name.startswith("--") else [word]


def _set(module: Any, params: Any, name: str, flag: _Flag, text: str | None) -> None:
    value = flag.fixed if text is None else text
    try:
        if flag.enum is not None:
            value = _member(module, flag.enum, str(value))
        elif text is not None:
            value = flag.read(text)
        *path, last = flag.attribute.split(".")
        target = params
        for part in path:
            target = getattr(target, part)
        setattr(target, last, value)
    except (ValueError, TypeError, OSError) as error:
        raise FlagError(f"{name} {text or ''}: {error}") from error


def _member(module: Any, enum: tuple[str, str], text: str) -> Any:
    name, prefix = enum
    members = getattr(module, name).__members__
    wanted = {key.removeprefix(prefix).lower(): member for key, member in members.items()}
    try:
        return wanted[text.lower()]
    except KeyError:
        raise ValueError(f"one of {', '.join(wanted)}") from None
