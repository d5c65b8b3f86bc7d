"""A long prompt is not processed twice because its model was unloaded in between."""

import json

import pytest

from tests.system.conftest import running
from tests.system.running import Llmd, free_ports, lay_out, request


MODELS = {"mlx": "tiny-mlx", "llama.cpp": "tiny-f16.gguf"}
PROMPT = "".join(str(n * n % 10) for n in range(600))
TOKENS = len(PROMPT)


def config(demo_models, **more):
    """Both engines, and room for one of them."""
    profiles = {
        engine: {
            "engine": engine, "model": model, "port": port, "memory": "600MiB", "parallel": 1,
            "prompt_cache": "16MiB",
        }
        for (engine, model), port in zip(MODELS.items(), free_ports(2), strict=True)
    }  # fmt: skip
    for profile in profiles.values():
        if profile["engine"] == "llama.cpp":
            profile["args"] = ["--threads", "1"]
    more = {"models_dirs": [str(demo_models)], "warm_spare": False, "min_residency": "0s", **more}
    return lay_out(profiles, **{"budget": "1GiB", **more})


def ask(daemon, engine, prompt=PROMPT):
    """What came, and how many tokens did not have to be processed."""
    port = daemon.profile(engine)["port"]
    body = {"prompt": prompt, "max_tokens": 8, "temperature": 0}
    status, _, answer = request(port, path="/v1/completions", body=body)
    assert status == 200, answer
    told = json.loads(answer)
    return told["choices"][0]["text"], told["usage"]["prompt_tokens_details"]["cached_tokens"]


def saved(daemon):
    return [file for file in (daemon.directory / "cache/prompts").rglob("*") if file.is_file()]


@pytest.fixture(scope="module")
def daemon(demo_models):
    with running(config(demo_models)) as started:
        yield started


@pytest.mark.parametrize("engine", MODELS)
def test_eviction_costs_the_load_and_not_the_prompt(daemon, engine):
    said, _ = ask(daemon, engine)
    [other] = set(MODELS) - {engine}
    ask(daemon, other, "hello")
    assert not daemon.profile(engine)["host_pid"]
    assert ask(daemon, engine) == (said, TOKENS - 1)
    assert "prompts.saved" in daemon.ctl("logs", "-n", "200").stdout


def test_unload_keeps_prompts_of_whoever_else_is_loaded(demo_models, start):
    daemon = start(config(demo_models, budget="2GiB"))
    said = {engine: ask(daemon, engine)[0] for engine in MODELS}
    for engine in MODELS:
        assert daemon.ctl("unload", engine).returncode == 0
    for engine in MODELS:
        assert ask(daemon, engine) == (said[engine], TOKENS - 1)


@pytest.mark.parametrize("engine", MODELS)
def test_restart_of_the_machine_keeps_prompts(demo_models, short_dir, engine):
    first = Llmd(short_dir, config(demo_models)).start()
    said, _ = ask(first, engine)
    assert first.stop() == 0
    second = Llmd(short_dir, first.config_file.read_text()).start()
    try:
        assert ask(second, engine) == (said, TOKENS - 1)
    finally:
        assert second.stop() == 0


def test_whoever_wants_none_on_disk_has_none_on_disk(demo_models, start):
    before = config(demo_models)
    daemon = start(before)
    ask(daemon, "mlx")
    ask(daemon, "llama.cpp")
    assert saved(daemon)

    daemon.write_config({**before, "saved_prompts": 0})
    assert daemon.ctl("reload").returncode == 0

    daemon.wait_for(lambda _: not saved(daemon))
    ask(daemon, "mlx")
    daemon.ctl("unload", "mlx")
    assert ask(daemon, "mlx")[1] == 0
    assert not saved(daemon)


def test_disk_is_bounded(demo_models, start):
    """Either fits, both do not: 2 to 3 MB of one, 1 of the other."""
    daemon = start(config(demo_models, budget="2GiB", saved_prompts="3500KB"))
    for engine in MODELS:
        ask(daemon, engine)
    for engine in MODELS:
        assert daemon.ctl("unload", engine).returncode == 0
    daemon.wait_for(lambda _: [file.suffix for file in saved(daemon)] == [".state"])


def test_model_whose_weights_changed_begins_anew(demo_models, short_dir, start):
    """What another model has computed would be answered as nonsense."""
    changing = short_dir / "tiny.gguf"
    changing.write_bytes((demo_models / "tiny-f16.gguf").read_bytes())
    with_it = config(demo_models)
    with_it["profiles"]["llama.cpp"]["model"] = str(changing)
    daemon = start(with_it)
    ask(daemon, "llama.cpp")
    daemon.ctl("unload", "llama.cpp")
    changing.write_bytes((demo_models / "tiny-q8_0.gguf").read_bytes())
    assert daemon.ctl("reload").returncode == 0
    assert ask(daemon, "llama.cpp")[1] == 0


def test_clients_cannot_save_or_restore(daemon):
    port = daemon.profile("llama.cpp")["port"]
    for action in ("save", "restore", "erase"):
        path = f"/slots/0?action={action}"
        assert request(port, path=path, body={"filename": "mine"})[0] == 404
