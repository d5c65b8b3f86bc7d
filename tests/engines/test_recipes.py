"""What each engine is for a profile: launches, capabilities and fingerprints, as data."""

from pathlib import Path

import pytest

from llmd.config.models import CommandProfile, LlamaProfile, MlxProfile, RemoteProfile
from llmd.engines import Installed, Materials, Stamp, recipe_for, upstream_for_remote
from llmd.errors import ConfigError
from llmd.proxy.gate import Upstream


EVERYTHING = Installed(
    llama_server=Path("/opt/bin/llama-server"), xllamacpp=True, llama_cpp_python=True
)
MATERIALS = Materials(
    installed=EVERYTHING,
    python="/venv/bin/python",
    model=Path("/models/m"),
    context_tokens=4096,
    prompt_cache_bytes=512 * 2**20,
    stamps=(Stamp("/models/m", 10_000_000_000, 1),),
)


def mlx(**fields):
    return MlxProfile(engine="mlx", name="code", port=8081, model="m", **fields)


def llama(**fields):
    return LlamaProfile(engine="llama.cpp", name="raw", port=8083, model="m.gguf", **fields)


def command(**fields):
    given = {"cmd": ("serve", "--port", "{port}"), "memory": "8GiB", **fields}
    return CommandProfile(engine="command", name="lab", port=8085, **given)


def remote(**fields):
    given = {"url": "http://studio.local:8081/v1", **fields}
    return RemoteProfile(engine="remote", name="big", port=8086, **given)


def materials(**changes):
    given = {name: getattr(MATERIALS, name) for name in Materials.__slots__}
    return Materials(**{**given, **changes})


def after(words, flag):
    """What follows *flag* in an argv."""
    return words[words.index(flag) + 1]


def test_mlx_runs_in_a_host_of_its_own_and_may_take_the_spare():
    recipe = recipe_for(mlx(parallel=3, args=("--top-k", "20")), MATERIALS)
    assert recipe.launch is not None
    assert recipe.launch.kind == "mlx"
    assert recipe.launch.options == {
        "model": "/models/m",
        "context": 4096,
        "parallel": 3,
        "prompt_cache_bytes": 512 * 2**20,
        "args": ["--top-k", "20"],
    }
    assert (recipe.sequences, recipe.spare_kind, recipe.runner) == (3, "mlx", "mlx_lm")
    assert {"/v1/embeddings", "/v1/rerank"} <= recipe.unsupported
    assert not {"/v1/messages", "/v1/messages/count_tokens", "/v1/responses"} & recipe.unsupported


def test_mlx_with_variables_cannot_use_a_spare_that_has_imported_already():
    recipe = recipe_for(mlx(env={"MLX_METAL_JIT": "1"}), MATERIALS)
    assert recipe.spare_kind is None
    assert recipe.launch.env == {"MLX_METAL_JIT": "1"}


@pytest.mark.parametrize(
    ("profile", "changes"),
    [
        pytest.param(mlx(draft_model="d"), {"draft": Path("/models/d")}, id="draft model"),
        pytest.param(mlx(args=("--kv-bits", "4")), {}, id="quantised cache"),
        pytest.param(mlx(args=("--kv-bits=4",)), {}, id="quantised cache in one word"),
    ],
)
def test_mlx_that_cannot_batch_is_given_one_request_at_a_time(profile, changes):
    assert recipe_for(profile, materials(**changes)).sequences == 1


def test_draft_and_adapters_reach_mlx():
    profile = mlx(draft_model="d", adapters="a")
    given = materials(draft=Path("/models/d"), adapters=Path("/models/a"))
    options = recipe_for(profile, given).launch.options
    assert (options["draft_model"], options["adapters"]) == ("/models/d", "/models/a")


@pytest.mark.parametrize(
    ("runner", "installed", "expected"),
    [
        pytest.param("auto", EVERYTHING, "llama-server", id="auto prefers llama-server"),
        pytest.param("auto", Installed(), "xllamacpp", id="then what llmd brings along"),
        pytest.param(
            "auto",
            Installed(xllamacpp=False, llama_cpp_python=True),
            "llama-cpp-python",
            id="then llama-cpp-python",
        ),
        pytest.param("xllamacpp", EVERYTHING, "xllamacpp", id="or the one that is named"),
        pytest.param("llama-cpp-python", EVERYTHING, "llama-cpp-python", id="whichever it is"),
    ],
)
def test_runner_of_llama_cpp(runner, installed, expected):
    recipe = recipe_for(llama(runner=runner), materials(installed=installed))
    assert recipe.runner == expected


@pytest.mark.parametrize(
    ("runner", "installed"),
    [
        ("auto", Installed(xllamacpp=False)),
        ("llama-server", Installed()),
        ("xllamacpp", Installed(xllamacpp=False)),
        ("llama-cpp-python", Installed()),
    ],
)
def test_runner_that_is_missing_is_an_error_with_a_remedy(runner, installed):
    with pytest.raises(ConfigError, match="installed") as caught:
        recipe_for(llama(runner=runner), materials(installed=installed))
    assert caught.value.remedy
    assert caught.value.param == "profiles.raw.runner"


def test_mlx_that_is_missing_is_an_error_with_a_remedy():
    with pytest.raises(ConfigError) as caught:
        recipe_for(mlx(), materials(installed=Installed(mlx=False)))
    assert caught.value.param == "profiles.code.engine"


def test_llama_inside_a_host():
    given = materials(draft=Path("/models/d"), saved_prompts_dir=Path("/cache/m"), token_bytes=9)
    profile = llama(runner="xllamacpp", parallel=4, args=("-ngl", "20"), load_timeout=30)
    recipe = recipe_for(profile, given)
    assert recipe.launch.kind == "llama"
    assert recipe.launch.options == {
        "model": "/models/m",
        "context": 4096,
        "parallel": 4,
        "prompt_cache_bytes": 512 * 2**20,
        "args": ["-ngl", "20"],
        "draft_model": "/models/d",
        "saved_prompts_dir": "/cache/m",
        "token_bytes": 9,
    }
    assert (recipe.sequences, recipe.launch.load_timeout_s) == (4, 30)


def test_llama_server_listens_on_a_private_socket_with_the_context_of_all_sequences():
    recipe = recipe_for(llama(parallel=4, args=("--temp", "0.2")), MATERIALS)
    argv = recipe.launch.options["argv"]
    assert recipe.launch.kind == "exec"
    assert argv[0] == "/opt/bin/llama-server"
    assert after(argv, "--host") == "{socket}"
    assert after(argv, "--alias") == "raw"
    assert (after(argv, "--ctx-size"), after(argv, "--parallel")) == ("16384", "4")
    assert after(argv, "--cache-ram") == "512"
    assert argv[-2:] == ["--temp", "0.2"]
    assert recipe.launch.options["ready"] == "/health"
    assert recipe.sequences == 4
    assert "--slot-save-path" not in argv


@pytest.mark.parametrize("profile", [mlx(), llama(runner="xllamacpp"), llama()])
def test_prompts_outlive_a_host_where_there_is_a_place_for_them(profile):
    given = {"saved_prompts_dir": Path("/cache/m"), "token_bytes": 9}
    options = recipe_for(profile, materials(**given)).launch.options
    assert options["saved_prompts_dir"] == "/cache/m"
    if "argv" in options:
        assert after(options["argv"], "--slot-save-path") == "/cache/m"
    assert "saved_prompts_dir" not in recipe_for(profile, MATERIALS).launch.options


@pytest.mark.parametrize("profile", [mlx(), llama(runner="xllamacpp")])
def test_resident_need_not_be_reloaded_for_what_becomes_of_its_prompts(profile):
    given = materials(saved_prompts_dir=Path("/cache/m"), token_bytes=9)
    assert recipe_for(profile, given).fingerprint == recipe_for(profile, MATERIALS).fingerprint


@pytest.mark.parametrize(
    "profile",
    [
        pytest.param(llama(runner="llama-cpp-python"), id="it cannot"),
        pytest.param(llama(args=("--embeddings",)), id="it makes vectors"),
        pytest.param(llama(args=("--rerank",)), id="it ranks"),
        pytest.param(llama(projector="mmproj.gguf"), id="it sees"),
        pytest.param(llama(args=("--slot-save-path=/mine",)), id="its user does so"),
        pytest.param(
            llama(args=("--slot-save-path", "/mine")), id="its user does so, in two words"
        ),
    ],
)
def test_server_is_not_asked_to_save_prompts_where(profile):
    given = materials(saved_prompts_dir=Path("/cache/m"))
    options = recipe_for(profile, given).launch.options
    assert "saved_prompts_dir" not in options
    assert "/cache/m" not in options["argv"]


def test_llama_cpp_python_is_asked_one_thing_at_a_time_and_never_interrupted():
    recipe = recipe_for(llama(runner="llama-cpp-python", parallel=4), MATERIALS)
    argv = recipe.launch.options["argv"]
    assert argv[:3] == ["/venv/bin/python", "-m", "llama_cpp.server"]
    assert after(argv, "--interrupt_requests") == "False"
    assert (after(argv, "--n_ctx"), after(argv, "--port")) == ("4096", "{port}")
    assert recipe.launch.options["ready"] == "/v1/models"
    assert recipe.launch.options["headers"] == {"Authorization": "Bearer {key}"}
    assert recipe.launch.env == {"API_KEY": "{key}", "GGML_NO_BACKTRACE": "1"}
    assert "{key}" not in argv
    assert recipe.sequences == 1
    assert {"/v1/rerank", "/v1/responses", "/v1/messages"} <= recipe.unsupported


def test_llama_cpp_python_has_no_draft_models():
    profile = llama(runner="llama-cpp-python", draft_model="d")
    with pytest.raises(ConfigError, match="draft"):
        recipe_for(profile, MATERIALS)


@pytest.mark.parametrize(
    ("args", "embeddings", "rerank"),
    [
        pytest.param((), False, False, id="a chat model has neither"),
        pytest.param(("--embeddings",), True, False, id="vectors on request"),
        pytest.param(("--reranking",), False, True, id="ranking on request"),
    ],
)
@pytest.mark.parametrize("runner", ["llama-server", "xllamacpp"])
def test_what_llama_cpp_can_do_depends_on_its_flags(runner, args, embeddings, rerank):
    unsupported = recipe_for(llama(runner=runner, args=args), MATERIALS).unsupported
    assert ("/v1/embeddings" not in unsupported) == embeddings
    assert ("/v1/rerank" not in unsupported) == rerank
    assert "/v1/messages" not in unsupported


def test_texts_computed_together_share_one_cache_where_vectors_are_made():
    argv = recipe_for(llama(runner="llama-server", args=("--embeddings",)), MATERIALS)
    assert "--kv-unified" in argv.launch.options["argv"]
    argv = recipe_for(llama(runner="llama-server"), MATERIALS)
    assert "--kv-unified" not in argv.launch.options["argv"]


@pytest.mark.parametrize("args", [(), ("--embeddings",)])
def test_mlx_gives_vectors_on_request(args):
    unsupported = recipe_for(mlx(args=args), MATERIALS).unsupported
    assert ("/v1/embeddings" in unsupported) == (not args)


def test_projector_is_named_to_every_llama_cpp_but_the_python_one(tmp_path):
    found = materials(projector=tmp_path / "mmproj.gguf")
    inside = recipe_for(llama(runner="xllamacpp", projector="x"), found)
    assert inside.launch.options["projector"] == str(found.projector)
    argv = recipe_for(llama(runner="llama-server", projector="x"), found).launch.options["argv"]
    assert after(argv, "--mmproj") == str(found.projector)
    with pytest.raises(ConfigError, match="takes a projector only together"):
        recipe_for(llama(runner="llama-cpp-python", projector="x"), found)


def test_command_is_run_as_it_is_written():
    recipe = recipe_for(command(args=("-v",), ready="/ok", env={"A": "b"}, parallel=7), MATERIALS)
    assert recipe.launch.kind == "exec"
    assert recipe.launch.options == {"argv": ["serve", "--port", "{port}", "-v"], "ready": "/ok"}
    assert recipe.launch.env == {"A": "b"}
    assert (recipe.sequences, recipe.unsupported) == (7, frozenset())


def test_remote_runs_nothing_and_wants_its_own_name_for_the_model():
    recipe = recipe_for(remote(model="qwen", force={"temperature": 0}), MATERIALS)
    assert recipe.launch is None
    assert recipe.edits.force == {"temperature": 0, "model": "qwen"}
    assert recipe.sequences == 16


@pytest.mark.parametrize("profile", [mlx, llama, command, remote])
def test_profile_without_defaults_has_bodies_that_need_no_parsing(profile):
    edits = recipe_for(profile(), MATERIALS).edits
    assert (edits.defaults, edits.force) == ({}, {})
    edits = recipe_for(profile(defaults={"top_k": 1}, force={"seed": 2}), MATERIALS).edits
    assert (edits.defaults, edits.force) == ({"top_k": 1}, {"seed": 2})


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param(
            "http://studio.local:8081/v1",
            Upstream(
                host="studio.local",
                port=8081,
                prefix="/v1",
            ),
            id="with a port",
        ),
        pytest.param(
            "http://studio.local:8081",
            Upstream(
                host="studio.local",
                port=8081,
                prefix="/v1",
            ),
            id="without a path",
        ),
        pytest.param(
            "https://api.example.com/openai/v1/",
            Upstream(
                host="api.example.com",
                port=443,
                tls=True,
                prefix="/openai/v1",
            ),
            id="over TLS, deeper down",
        ),
        pytest.param(
            "http://[::1]:9000/v1",
            Upstream(host="::1", port=9000, prefix="/v1"),
            id="IPv6",
        ),
    ],
)
def test_address_of_a_remote(url, expected):
    assert upstream_for_remote(remote(url=url), {}) == expected


def test_key_of_a_remote_comes_from_the_environment():
    profile = remote(api_key_env="STUDIO_KEY")
    headers = upstream_for_remote(profile, {"STUDIO_KEY": "s3cret\n"}).headers
    assert headers["Authorization"] == "Bearer s3cret"
    with pytest.raises(ConfigError, match="STUDIO_KEY"):
        upstream_for_remote(profile, {})


def test_key_of_a_remote_comes_from_a_private_file_and_shows_nowhere(tmp_path):
    file = tmp_path / "key"
    file.write_text("s3cret\n")
    file.chmod(0o600)
    profile = remote(api_key_file=file)
    assert upstream_for_remote(profile, {}).headers["Authorization"] == "Bearer s3cret"
    assert "s3cret" not in repr(recipe_for(profile, MATERIALS))
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="key"):
        upstream_for_remote(profile, {})


@pytest.mark.parametrize("where", ["cmd", "env"])
def test_command_that_asks_for_a_key_is_spoken_to_with_it(where):
    given = {"cmd": ("serve", "--api-key", "{key}")} if where == "cmd" else {"env": {"K": "{key}"}}
    options = recipe_for(command(**given), MATERIALS).launch.options
    assert options["headers"] == {"Authorization": "Bearer {key}"}
    assert "headers" not in recipe_for(command(), MATERIALS).launch.options


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        pytest.param(mlx(), mlx(), True, id="nothing changed"),
        pytest.param(mlx(), mlx(idle_ttl=5, pinned=True, aliases=("a",)), True, id="rules only"),
        pytest.param(mlx(), mlx(load_timeout=5), True, id="patience only"),
        pytest.param(mlx(), mlx(defaults={"top_k": 1}), True, id="request fields only"),
        pytest.param(mlx(), mlx(parallel=5), False, id="sequences"),
        pytest.param(mlx(), mlx(args=("--top-k", "1")), False, id="flags"),
        pytest.param(mlx(), mlx(env={"A": "b"}), False, id="environment"),
        pytest.param(llama(), llama(runner="xllamacpp"), False, id="runner"),
        pytest.param(llama(), llama(runner="llama-server"), True, id="the runner it had anyway"),
        pytest.param(command(), command(ready="/up"), False, id="command"),
        pytest.param(remote(), remote(url="http://other/v1"), False, id="address"),
    ],
)
def test_fingerprint_changes_with_what_a_resident_is_loaded_with(one, other, same):
    first, second = (recipe_for(profile, MATERIALS).fingerprint for profile in (one, other))
    assert (first == second) == same
    assert len(first) == 16


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"context_tokens": 8192}, id="context"),
        pytest.param({"prompt_cache_bytes": 1}, id="prompt cache"),
        pytest.param({"model": Path("/models/other")}, id="weights elsewhere"),
        pytest.param({"stamps": (Stamp("/models/m", 10_000_000_000, 2),)}, id="weights replaced"),
    ],
)
@pytest.mark.parametrize("profile", [mlx(), llama()])
def test_fingerprint_changes_with_the_weights_and_what_is_kept_of_them(profile, changes):
    before = recipe_for(profile, MATERIALS).fingerprint
    assert recipe_for(profile, materials(**changes)).fingerprint != before


def test_bigger_weights_are_expected_to_take_longer():
    small = materials(stamps=(Stamp("/models/m", 10**9),))
    assert recipe_for(mlx(), small).load_s < recipe_for(mlx(), MATERIALS).load_s


@pytest.mark.parametrize("make", [mlx, llama, command, remote])
def test_descriptions_of_tools_are_cut_for_any_engine(make):
    assert recipe_for(make(), MATERIALS).edits.tool_description_limit is None
    profile = make(tool_description_limit=200)
    assert recipe_for(profile, MATERIALS).edits.tool_description_limit == 200
    assert recipe_for(profile, MATERIALS).fingerprint == recipe_for(make(), MATERIALS).fingerprint


def test_schemas_are_widened_for_llama_cpp_alone():
    widened = {p.name: recipe_for(p, MATERIALS).edits.widen_schemas
               for p in (mlx(), llama(), command(), remote())}  # fmt: skip
    assert widened == {"code": False, "raw": True, "lab": False, "big": False}
