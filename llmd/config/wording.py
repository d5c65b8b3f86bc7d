"""Validation errors in plain words, with the path as it stands in the file."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, Final

from pydantic_core import ErrorDetails

from llmd.config.models import (
    CommandProfile,
    Config,
    Gateway,
    LlamaProfile,
    MlxProfile,
    ProfileBase,
    RemoteProfile,
)
from llmd.config.yamlfile import Path


ENGINES: Final[dict[str, type[ProfileBase]]] = {
    "mlx": MlxProfile,
    "llama.cpp": LlamaProfile,
    "command": CommandProfile,
    "remote": RemoteProfile,
}

_HABITS: Final = {
    "ctx": "context", "n_ctx": "context", "ctx_size": "context", "max_context": "context",
    "num_ctx": "context", "slots": "parallel", "n_parallel": "parallel", "ttl": "idle_ttl",
    "keep_alive": "idle_ttl", "concurrency": "parallel", "path": "model", "weights": "model",
    "timeout": "load_timeout", "pin": "pinned", "command": "cmd", "models": "profiles",
    "policy": "eviction", "host": "listen", "bind": "listen", "models_dir": "models_dirs",
    "backend": "engine", "draft": "draft_model", "adapter": "adapters", "lora": "adapters",
    "health": "ready", "base_url": "url", "cors": "cors_origins", "keys": "api_keys",
    "api_key": "api_keys", "keyring": "api_keys_keyring", "key_file": "api_keys_file",
    "memory_budget": "budget", "always": "force",
}  # fmt: skip
"""What other programs call it."""

_WANTED: Final = {
    "int": "a whole number", "float": "a number", "bool": "true or false", "string": "text",
    "tuple": "a list", "list": "a list", "dict": "a mapping of names to values",
    "model": "a mapping of names to values", "path": "a path",
}  # fmt: skip


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The one of *known* that *word* was probably meant to be."""
    names = sorted(known)
    if _HABITS.get(word.lower()) in names:
        return _HABITS[word.lower()]
    lowered = {name.lower(): name for name in names}
    close = difflib.get_close_matches(word.lower(), lowered, n=1, cutoff=0.6)
    return lowered[close[0]] if close else None


def place_and_text(error: ErrorDetails, data: Any) -> tuple[Path, str, bool]:
    """Path of one pydantic error in the file, what to say, and whether its key is at fault."""
    path = _file_path(error["loc"])
    kind = error["type"]
    context = error.get("ctx", {})
    if kind == "missing":
        return path[:-1], _say_missing(path, data), True
    if kind == "extra_forbidden":
        return path, _say_unknown_key(path, data), True
    if error["loc"][-1:] == ("[key]",):
        return path, _say_bad_key(str(path[-1]), error), True
    if kind == "union_tag_not_found":
        if not isinstance(error["input"], dict):
            return path, f"must be {_WANTED['model']}, not {_described(error['input'])}", False
        return path, f"`engine` is missing; it is one of {_listed(ENGINES)}", True
    if kind == "union_tag_invalid":
        return (*path, "engine"), _say_choice(str(context["tag"]), list(ENGINES)), False
    return path, _say_value(error, path), False


def _file_path(location: Sequence[int | str]) -> Path:
    """*location* without the steps that pydantic adds: engine tags, union members, `[key]`."""
    parts = list(location)
    if len(parts) > 2 and parts[0] == "profiles" and parts[2] in ENGINES:
        del parts[2]
    if parts and parts[-1] == "[key]":
        parts.pop()
    if parts[:1] == ["budget"]:
        parts = parts[:1]
    return tuple(parts)


def _say_missing(path: Path, data: Any) -> str:
    wanted = str(path[-1])
    if not path[:-1] and wanted == "profiles":
        return "`profiles` is missing: the file describes no model"
    given: Any = data
    for part in path[:-1]:
        given = given[part] if isinstance(given, dict) else {}
    why = " (llmd cannot estimate what a command needs)" if wanted == "memory" else ""
    unknown = [key for key in given if nearest(key, {wanted}) and key != wanted]
    hint = f"; `{unknown[0]}` looks like it" if unknown else ""
    return f"`{wanted}` is missing{why}{hint}"


def _say_unknown_key(path: Path, data: Any) -> str:
    key = str(path[-1])
    if len(path) == 1:
        known = set(Config.model_fields)
        if key in ProfileBase.model_fields or key == "engine":
            return "unknown key; it belongs to a profile, under `profiles`"
    elif path[0] == "gateway":
        known = set(Gateway.model_fields)
    else:
        engine = data["profiles"][path[1]]["engine"]
        known = set(ENGINES[engine].model_fields) - {"name"}
        owners = [name for name, model in ENGINES.items() if key in model.model_fields]
        if owners:
            return f"is for engine {' or '.join(owners)}, and this profile's is {engine}"
        if key in Config.model_fields:
            return "unknown key; it belongs to the top of the file, not to a profile"
    guess = nearest(key, known)
    return (
        f"unknown key; did you mean `{guess}`?"
        if guess
        else f"unknown key; known are {_listed(sorted(known))}"
    )


def _say_bad_key(key: str, error: ErrorDetails) -> str:
    if error["type"] == "value_error":
        return _own_words(error)
    return (
        "cannot be a profile's name: at most 64 letters, digits and . _ : -, "
        "beginning with a letter or digit"
        if key
        else "a profile's name is empty"
    )


def _say_value(error: ErrorDetails, path: Path) -> str:
    kind, given, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "value_error":
        return _own_words(error)
    if kind == "literal_error":
        choices = [
            part.strip(" '") for part in str(context["expected"]).replace(" or ", ", ").split(",")
        ]
        return _say_choice(_described(given) if not isinstance(given, str) else given, choices)
    if kind.startswith(("greater_than", "less_than")):
        limit = context.get("ge", context.get("le", context.get("gt", context.get("lt"))))
        bound = {"greater_than_equal": "at least", "less_than_equal": "at most"}.get(kind, "beyond")
        return f"must be {bound} {limit}, not {_described(given)}"
    if kind == "too_short":
        return "must not be empty"
    if kind == "string_pattern_mismatch":
        return f"{given!r} cannot be a name: letters, digits and . _ : - only, at most 64"
    wanted = _WANTED.get("int" if path == ("budget",) else kind.split("_")[0])
    if path == ("budget",):
        wanted = "a size such as 48GiB, a share such as 75%, or auto"
    if wanted is None:
        return error["msg"].replace("Input should be", "must be")
    if given is None:
        return f"has no value; it must be {wanted}"
    return f"must be {wanted}, not {_described(given)}"


def _own_words(error: ErrorDetails) -> str:
    """The text of a ValueError that one of our own validators raised."""
    return str(error.get("ctx", {}).get("error", error["msg"]))


def _say_choice(given: str, choices: Sequence[str]) -> str:
    guess = nearest(given, choices)
    shown = given if len(given) <= 60 else f"{given[:57]}…"
    end = f"did you mean {guess}?" if guess else ""
    return f"{shown!r} is none of {_listed(choices)}" + (f"; {end}" if end else "")


def _described(value: Any) -> str:
    """*value* for the end of a sentence: the value itself when short, else its kind."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)[:60]
    if isinstance(value, str):
        return f"the text {value!r}" if len(value) <= 60 else "a long text"
    return "a list" if isinstance(value, list | tuple) else "a mapping"


def _listed(names: Iterable[str]) -> str:
    *front, last = names
    return f"{', '.join(front)} or {last}" if front else last
