"""GGUF weights: llama.cpp's server as a program, inside a host of ours, or its Python cousin."""

import os
from typing import Any, Final, Literal, assert_never

from llmd.config.models import LlamaProfile
from llmd.engines.recipe import Installed, Materials, Recipe, fingerprint_of, launch_content
from llmd.errors import ConfigError
from llmd.hosts.protocol import Launch
from llmd.proxy.gate import BodyEdits


Runner = Literal["llama-server", "xllamacpp", "llama-cpp-python"]

_EMBEDDINGS: Final = frozenset({"/v1/embeddings"})
_RERANK: Final = frozenset({"/v1/rerank", "/v1/reranking"})
_OWN_PATHS: Final = frozenset(
    {
        "/v1/completion",
        "/v1/infill",
        "/v1/tokenize",
        "/v1/detokenize",
        "/v1/apply-template",
        "/v1/embedding",
        "/v1/reranking",
        "/v1/chat/completions/input_tokens",
        "/v1/responses/input_tokens",
        "/v1/audio/transcriptions",
    }
)
_CPP_PYTHON_PATHS: Final = frozenset(
    {"/v1/extras/tokenize", "/v1/extras/tokenize/count", "/v1/extras/detokenize"}
)
_CPP_PYTHON_LACKS: Final = _RERANK | {
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
}

_READ_BYTES_PER_S: Final = 2.5e9
_START_S: Final[dict[Runner, float]] = {
    "llama-server": 0.3,
    "xllamacpp": 0.3,
    "llama-cpp-python": 1.5,
}
_PROJECTOR_FLAGS: Final = ("--mmproj", "-mm", "--mmproj-url", "-mmu", "--mmproj-auto")
_EMBEDDING_FLAGS: Final = frozenset({"--embeddings", "--embedding"})
_RERANK_FLAGS: Final = frozenset({"--reranking", "--rerank"})
_VECTOR_FLAGS: Final = _EMBEDDING_FLAGS | _RERANK_FLAGS
_SPARE_HTTP_THREADS: Final = 12
_ONE_TOKEN: Final = {"prompt": "a", "max_tokens": 1}
_MIB: Final = 2**20
_NO_DEBUGGER: Final = "GGML_NO_BACKTRACE"
"""Else an engine that aborts starts `gdb`, which prints what functions were called with."""


def recipe(profile: LlamaProfile, materials: Materials) -> Recipe:
    """What llama.cpp is for *profile*.

    Raises:
        ConfigError: The runner is not installed, or cannot do what the profile asks for.
    """
    runner = choose_runner(profile, materials.installed)
    match runner:
        case "xllamacpp":
            launch = _inside(profile, materials)
        case "llama-server":
            launch = _llama_server(profile, materials)
        case "llama-cpp-python":
            launch = _cpp_python(profile, materials)
        case _:
            assert_never(runner)
    force = profile.force
    if runner == "llama-cpp-python":  # it names the model in its answers as the request did
        force = {**force, "model": profile.name}
    return Recipe(
        launch=launch,
        sequences=1 if runner == "llama-cpp-python" else profile.parallel,
        runner=runner,
        unsupported=_unsupported(runner, profile),
        own_paths=_CPP_PYTHON_PATHS if runner == "llama-cpp-python" else _OWN_PATHS,
        edits=BodyEdits(
            defaults=profile.defaults,
            force=force,
            check_fields=True,
            widen_schemas=True,
            refuse_addresses=sees(profile),
            tool_description_limit=profile.tool_description_limit,
        ),
        fingerprint=fingerprint_of(launch_content(launch), materials.stamps),
        load_s=_START_S[runner] + materials.weights_bytes / _READ_BYTES_PER_S,
    )


def sees(profile: LlamaProfile) -> bool:
    """Whether it takes pictures or sound."""
    return profile.projector is not None or not _words(profile).isdisjoint(_PROJECTOR_FLAGS)


def choose_runner(profile: LlamaProfile, installed: Installed) -> Runner:
    """The runner that *profile* names, or the first that is installed.

    Raises:
        ConfigError: It, or any at all, is missing.
    """
    present: dict[Runner, bool] = {
        "llama-server": installed.llama_server is not None,
        "xllamacpp": installed.xllamacpp,
        "llama-cpp-python": installed.llama_cpp_python,
    }
    param = f"profiles.{profile.name}.runner"
    if profile.runner == "auto":
        for runner, there in present.items():
            if there:
                return runner
        raise ConfigError("no llama.cpp is installed", remedy="brew install llama.cpp", param=param)
    if not present[profile.runner]:
        remedies: dict[Runner, str] = {
            "llama-server": "brew install llama.cpp, or put llama-server on PATH",
            "xllamacpp": "reinstall llmd with its dependencies",
            "llama-cpp-python": "install llmd[llama-cpp-python]; it compiles for some minutes",
        }
        raise ConfigError(
            f"{profile.runner} is not installed", remedy=remedies[profile.runner], param=param
        )
    return profile.runner


def _unsupported(runner: Runner, profile: LlamaProfile) -> frozenset[str]:
    words = _words(profile)
    lacking = _CPP_PYTHON_LACKS if runner == "llama-cpp-python" else frozenset[str]()
    if not words & _EMBEDDING_FLAGS:
        lacking |= _EMBEDDINGS
    if not words & _RERANK_FLAGS:
        lacking |= _RERANK
    return lacking


def _inside(profile: LlamaProfile, materials: Materials) -> Launch:
    options: dict[str, Any] = {
        "model": os.fspath(materials.model or profile.model),
        "context": materials.context_tokens,
        "parallel": profile.parallel,
        "prompt_cache_bytes": materials.prompt_cache_bytes,
        "args": list(profile.args),
    }
    if materials.draft is not None:
        options["draft_model"] = os.fspath(materials.draft)
    if materials.projector is not None:
        options["projector"] = os.fspath(materials.projector)
    return _launch(profile, "llama", {**options, **_saving(profile, materials)}, {})


def _saving(profile: LlamaProfile, materials: Materials) -> dict[str, Any]:
    """The options of prompts that outlive their host: none where there are no such prompts.

    llama.cpp saves no sequence beside a projector.
    """
    directory, words = materials.saved_prompts_dir, _words(profile)
    if directory is None or sees(profile) or words & _VECTOR_FLAGS or "--slot-save-path" in words:
        return {}
    return {"saved_prompts_dir": os.fspath(directory), "token_bytes": materials.token_bytes}


def _words(profile: LlamaProfile) -> set[str]:
    """The flags among its `args`, and whatever else is there, without what follows a `=`."""
    return {arg.partition("=")[0] for arg in profile.args}


def _llama_server(profile: LlamaProfile, materials: Materials) -> Launch:
    argv = [
        os.fspath(materials.installed.llama_server or "llama-server"),
        *("--host", "{socket}"),
        *("--model", os.fspath(materials.model or profile.model)),
        *("--alias", profile.name),
        *("--ctx-size", str(materials.context_tokens * profile.parallel)),
        *("--parallel", str(profile.parallel)),
        *("--cache-ram", str(materials.prompt_cache_bytes // _MIB)),
        *("--threads-http", str(profile.parallel + _SPARE_HTTP_THREADS)),
        *("--reasoning-format", "deepseek"),
        "--slots",
        "--metrics",
        "--no-webui",
        "--offline",
    ]
    if materials.draft is not None:
        argv += ["--model-draft", os.fspath(materials.draft)]
    if materials.projector is not None:
        argv += ["--mmproj", os.fspath(materials.projector)]
    saving = _saving(profile, materials)
    if saving:
        argv += ["--slot-save-path", saving["saved_prompts_dir"]]
    vectors = _words(profile) & _VECTOR_FLAGS
    if vectors:
        argv.append("--kv-unified")  # as in `llmd.hosts.llama`: else vectors can be wrong
    options: dict[str, Any] = {"argv": argv + list(profile.args), "ready": "/health"}
    options |= {"slots": "/slots", **saving}
    if not vectors:
        options["probe"] = ["/v1/completions", _ONE_TOKEN]
    return _launch(profile, "exec", options, {})


def _cpp_python(profile: LlamaProfile, materials: Materials) -> Launch:
    if profile.draft_model is not None:
        raise ConfigError(
            "llama-cpp-python has no speculative decoding with a draft model",
            remedy="remove `draft_model`, or take another runner",
            param=f"profiles.{profile.name}.draft_model",
        )
    if profile.projector is not None:
        raise ConfigError(
            "llama-cpp-python takes a projector only together with a chat format of its own",
            remedy="take another runner, or remove `projector`",
            param=f"profiles.{profile.name}.projector",
        )
    argv = [
        materials.python,
        *("-m", "llama_cpp.server"),
        *("--host", "127.0.0.1", "--port", "{port}"),
        *("--model", os.fspath(materials.model or profile.model)),
        *("--model_alias", profile.name),
        *("--n_ctx", str(materials.context_tokens)),
        *("--n_gpu_layers", "-1"),
        *("--flash_attn", "True"),  # off by default, and then buffers grow with the context
        *("--interrupt_requests", "False"),  # else a new request cuts off the running one
        *profile.args,
    ]
    options = {
        "argv": argv,
        "ready": "/v1/models",  # it has no /health, and loads before it listens
        "probe": ["/v1/completions", _ONE_TOKEN],
        "headers": {"Authorization": "Bearer {key}"},
    }
    # The key is a setting of the server like any other, and arguments can be read by everybody.
    return _launch(profile, "exec", options, {"API_KEY": "{key}"})


def _launch(
    profile: LlamaProfile, kind: str, options: dict[str, Any], env: dict[str, str]
) -> Launch:
    return Launch(
        profile=profile.name,
        kind=kind,
        options=options,
        env={_NO_DEBUGGER: "1", **profile.env, **env},
        load_timeout_s=profile.load_timeout,
    )
