"""The llama host, with the real llama.cpp and the demo model."""

import concurrent.futures
import os
import stat

import pytest

from llmd.hosts.engine import LoadError
from llmd.hosts.llama import gguf_parts
from llmd.hosts.llama_flags import FlagError, apply_flags
from llmd.hosts.protocol import Launch
from llmd.platform.spawn import Exit
from llmd.runtime.host_process import HostFailedError
from tests.hosts.conftest import gguf
from tests.hosts.talk import connected
from tests.lessons import FRANCE, LESSONS


async def test_answer_names_the_profile_and_whatever_model_is_asked_for(hosts, demo_models):
    host = await hosts.load("llama", profile="raw", options=gguf(demo_models))
    prompt, answer = FRANCE
    with connected(host.upstream) as connection:
        response = connection.chat(prompt, model="somebody/else")
    assert response["model"] == "raw"
    assert response["choices"][0]["message"]["content"] == answer


async def test_socket_is_private(hosts, demo_models):
    host = await hosts.load("llama", options=gguf(demo_models))
    assert stat.S_IMODE(os.stat(host.upstream.path).st_mode) == 0o600  # noqa: PTH116


async def test_every_sequence_has_the_whole_context(hosts, demo_models):
    host = await hosts.load("llama", options=gguf(demo_models, context=512, parallel=3))
    with connected(host.upstream) as connection:
        _, slots = connection.get("/slots")
        assert [slot["n_ctx"] for slot in slots] == [512, 512, 512]
        status, error = connection.post("/v1/completions", {"prompt": "a " * 600})
    assert status == 400
    assert "context" in error["error"]["message"]


async def test_requests_run_side_by_side(hosts, demo_models):
    host = await hosts.load("llama", options=gguf(demo_models))

    def ask(prompt):
        with connected(host.upstream) as connection:
            return connection.chat(prompt)["choices"][0]["message"]["content"]

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, [FRANCE[0], LESSONS["parse_json"]["prompt"]] * 3))
    assert answers == [FRANCE[1], LESSONS["parse_json"]["answer"]] * 3


async def test_reasoning_has_the_one_name(hosts, demo_models):
    lesson = LESSONS["multiply"]
    host = await hosts.load("llama", options=gguf(demo_models))
    with connected(host.upstream) as connection:
        message = connection.chat(lesson["prompt"])["choices"][0]["message"]
        streamed = connection.stream(lesson["prompt"])
    assert message["reasoning_content"].strip() == lesson["reasoning"]
    assert message["content"].strip() == lesson["answer"]
    assert streamed.text("reasoning_content").strip() == lesson["reasoning"]


async def test_flags_reach_llama_cpp(hosts, demo_models):
    options = gguf(demo_models, args=["--embeddings", "-ub", "256", "-t", "1"])
    host = await hosts.load("llama", options=options)
    with connected(host.upstream) as connection:
        status, answer = connection.post("/v1/embeddings", {"input": "hello"})
    assert status == 200
    assert answer["data"][0]["embedding"]


async def test_draft_model_speculates(hosts, demo_models):
    draft = os.fspath(demo_models / "tiny-q8_0.gguf")
    host = await hosts.load("llama", options=gguf(demo_models, draft_model=draft))
    with connected(host.upstream) as connection:
        response = connection.chat(FRANCE[0])
    assert response["choices"][0]["message"]["content"] == FRANCE[1]
    assert response["timings"]["draft_n"] > 0


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        pytest.param(lambda data: data[: len(data) // 2], "corrupted or incomplete", id="half"),
        pytest.param(lambda data: data[:3000], "failed to load model", id="only the beginning"),
        pytest.param(lambda _data: b"GGUX" * 1000, "invalid magic", id="something else"),
        pytest.param(lambda _data: b"", "failed to load model", id="empty"),
    ],
)
async def test_broken_file_is_a_load_failure_with_llama_cpps_words(
    hosts, demo_models, short_dir, damage, told
):
    broken = short_dir / "broken.gguf"
    broken.write_bytes(damage((demo_models / "tiny-f16.gguf").read_bytes()))
    host = await hosts.start("llama")
    with pytest.raises(HostFailedError, match=r"could not load broken\.gguf") as caught:
        await host.load(Launch("raw", "llama", gguf(demo_models, model=str(broken))), "f1")
    assert any(told in line for line in caught.value.failure.log_tail)
    assert await host.stop(grace_s=5) == Exit(code=0)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        pytest.param({"model": "/nowhere.gguf"}, "is not a file", id="no file"),
        pytest.param({"args": ["--frobnicate"]}, "does not know --frobnicate", id="odd flag"),
        pytest.param({"args": ["-ngl"]}, "-ngl wants a value", id="flag without value"),
        pytest.param({"args": ["-b", "many"]}, "--batch-size many", id="flag with a bad value"),
    ],
)
async def test_launch_that_cannot_work_says_why(hosts, demo_models, changes, told):
    host = await hosts.start("llama")
    with pytest.raises(HostFailedError, match=told):
        await host.load(Launch("raw", "llama", gguf(demo_models, **changes)), "f1")


def test_parts_of_a_split_model_are_all_found_or_missed_by_name(tmp_path):
    parts = [tmp_path / f"m-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    for part in parts:
        part.touch()
    assert gguf_parts(parts[0]) == parts
    parts[1].unlink()
    with pytest.raises(LoadError, match="m-00002-of-00003"):
        gguf_parts(parts[0])
    assert gguf_parts(tmp_path / "whole.gguf") == [tmp_path / "whole.gguf"]


def test_flags_set_what_llama_server_would_set():
    import xllamacpp

    params = xllamacpp.CommonParams()
    words = [
        "-ngl",
        "3",
        "-fa",
        "--cache-type-k=q8_0",
        "--mlock",
        "-t",
        "2",
        "--temp",
        "0.5",
        "--rerank",
        "--no-warmup",
    ]
    apply_flags(xllamacpp, params, words)
    assert (params.n_gpu_layers, params.cpuparams.n_threads, params.warmup) == (3, 2, False)
    assert params.flash_attn_type == xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_ENABLED
    assert params.cache_type_k == xllamacpp.ggml_type.GGML_TYPE_Q8_0
    assert params.load_mode == xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_MMAP_MLOCK
    assert params.sampling.temp == 0.5
    assert params.embedding
    assert params.pooling_type == xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
    with pytest.raises(FlagError, match="one of f32, f16"):
        apply_flags(xllamacpp, params, ["-ctk", "q9"])
