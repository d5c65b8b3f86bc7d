"""Prompts that outlive their host: both engines for real, and what a disk can do to the files."""

import json
import os
import random
import shutil
import stat
import sys

import pytest

from llmd.hosts import saved_prompts
from llmd.hosts.mlx import MlxEngine
from llmd.hosts.saved_prompts import MIN_TOKENS, Allowance, newest_first, place
from llmd.runtime.host_process import HostFailedError
from tests.hosts.conftest import gguf, mlx
from tests.hosts.talk import connected


WHOLE = {"limit_bytes": 2**30, "within_s": 30.0}
PROMPT = "".join(str(n % 10) for n in range(400))
"""A token for each digit."""
SERVER = """
import signal, sys
from pathlib import Path
import xllamacpp
from llmd.hosts.llama import LlamaEngine
from llmd.hosts.protocol import Launch
socket, directory, options = Path(sys.argv[1]), sys.argv[2], eval(sys.argv[3])
params = LlamaEngine(socket)._params(xllamacpp, Launch("raw", "llama", options))
params.slot_save_path = directory
server = xllamacpp.Server(params)
signal.pause()
"""
"""llama.cpp's server as a program, as far as it is needed here."""


ENDS = """
import http.server, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'[{"id": 0}]'
        self.send_response(200)
        self.send_header("Content-Length", len(body))
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        os._exit(1)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
"""Ends over a file, as llama.cpp does over some damaged files of some models."""


def llama_server(demo_models, directory):
    argv = [sys.executable, "-c", SERVER, "{socket}", f"{directory}/", repr(gguf(demo_models))]
    return {"argv": argv, "ready": "/health", "slots": "/slots"}


@pytest.fixture(params=["mlx", "llama", "exec"])
def start(request, hosts, demo_models, short_dir):
    """Starts a host of one kind with the demo model, whose prompts are in `prompts`."""
    options = {
        "mlx": mlx(demo_models, prompt_cache_bytes=16 * 2**20),
        "llama": gguf(demo_models),
        "exec": llama_server(demo_models, short_dir / "prompts"),
    }[request.param]

    async def start(**more):
        saving = {"saved_prompts_dir": os.fspath(short_dir / "prompts"), "token_bytes": 4096}
        return await hosts.load(request.param, options={**options, **saving, **more})

    start.kind = request.param
    return start


def ask(host, prompt):
    """What came, and how many tokens of *prompt* did not have to be processed."""
    with connected(host.upstream) as connection:
        body = {"prompt": prompt, "max_tokens": 4, "temperature": 0}
        status, answer = connection.post("/v1/completions", body)
    assert status == 200, answer
    return answer["choices"][0]["text"], answer["usage"]["prompt_tokens_details"]["cached_tokens"]


def files(short_dir):
    found = [path for path in (short_dir / "prompts").rglob("*") if path.is_file()]
    return sorted(found, key=lambda path: path.stat().st_size)


async def test_next_host_need_not_process_what_the_last_one_has(start, short_dir):
    first = await start()
    said, fresh = ask(first, PROMPT)
    assert fresh == 0
    prompts, count = await first.save(**WHOLE)
    await first.stop(grace_s=5)
    assert prompts == 1
    assert count == sum(file.stat().st_size for file in files(short_dir)) > len(PROMPT)

    second = await start()

    assert ask(second, PROMPT) == (said, len(PROMPT) - 1)
    # Also where it goes on otherwise.
    assert ask(second, PROMPT[:350] + "and more")[1] >= 350 - 2


async def test_directory_may_be_gone_meanwhile(start, short_dir):
    """The daemon deletes those that are empty."""
    host = await start()
    ask(host, PROMPT)
    shutil.rmtree(short_dir / "prompts")
    assert (await host.save(**WHOLE))[0] == 1
    assert len(files(short_dir)) == 1


async def test_files_are_for_their_owner_alone(start, short_dir):
    host = await start()
    ask(host, PROMPT)
    await host.save(**WHOLE)
    for path in (short_dir / "prompts").rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


async def test_short_prompts_are_not_worth_a_file(start, short_dir):
    host = await start()
    ask(host, PROMPT[: MIN_TOKENS - 20])
    assert await host.save(**WHOLE) == (0, 0)
    assert files(short_dir) == []


@pytest.mark.parametrize("scarce", [{"limit_bytes": 10_000}, {"within_s": 1e-6}])
async def test_what_has_no_room_or_no_time_is_not_saved(start, short_dir, scarce):
    host = await start()
    ask(host, PROMPT)
    assert await host.save(**{**WHOLE, **scarce}) == (0, 0)
    assert files(short_dir) == []


async def test_what_is_on_disk_already_is_not_written_again(start, short_dir):
    first = await start()
    said, _ = ask(first, PROMPT)
    await first.save(**WHOLE)
    await first.stop(grace_s=5)
    second = await start()
    if start.kind == "mlx":  # which reads it when it is asked for
        ask(second, PROMPT)
    [before] = files(short_dir)
    written = before.stat().st_ino

    assert await second.save(**WHOLE) == (0, 0)
    assert [file.stat().st_ino for file in files(short_dir)] == [written]

    ask(second, PROMPT + said + "and more")
    assert (await second.save(**WHOLE))[0] == 1
    assert [file.stat().st_ino for file in files(short_dir)] != [written]
    assert len(files(short_dir)) == 1, "in its place"


async def saved(start, short_dir):
    """What a first host said, and the file that it left."""
    first = await start()
    said, _ = ask(first, PROMPT)
    await first.save(**WHOLE)
    await first.stop(grace_s=5)
    [file] = files(short_dir)
    return said, file


@pytest.mark.parametrize("left", [0.5, 0.01, 0.0])
async def test_file_that_was_cut_off_costs_no_more_than_the_prompt(start, short_dir, left):
    """As a machine leaves it that dies meanwhile."""
    said, file = await saved(start, short_dir)
    os.truncate(file, int(file.stat().st_size * left))
    host = await start()
    assert ask(host, PROMPT) == (said, 0)
    assert not files(short_dir)


async def test_damaged_file_is_in_nobodys_way_twice(start, short_dir):
    """llama.cpp may end over it; the next load must not end the same way."""
    said, file = await saved(start, short_dir)
    file.write_bytes(random.Random(1).randbytes(file.stat().st_size))
    try:
        host = await start()
    except HostFailedError:
        assert start.kind != "mlx"
        host = await start()
    assert ask(host, PROMPT) == (said, 0)
    assert not files(short_dir)


async def test_server_that_ends_over_a_file_is_not_ready_and_ends_over_it_once(hosts, short_dir):
    prompts = short_dir / "prompts"
    prompts.mkdir()
    (prompts / "slot-0-4.state").write_bytes(b"some")
    options = {
        "argv": [sys.executable, "-c", ENDS, "{port}"], "ready": "/health", "slots": "/slots",
        "saved_prompts_dir": os.fspath(prompts),
    }  # fmt: skip
    with pytest.raises(HostFailedError, match="ended before it was ready"):
        await hosts.load("exec", options=options)
    assert not files(short_dir)
    await hosts.load("exec", options=options)


async def test_directory_that_cannot_be_made_is_no_failure(start, short_dir):
    (short_dir / "prompts").write_text("in the way")
    host = await start()
    ask(host, PROMPT)
    assert await host.save(**WHOLE) == (0, 0)


async def test_saving_waits_for_a_load(hosts):
    host = await hosts.start("llama")
    with pytest.raises(HostFailedError, match="cannot save while idle"):
        await host.save(**WHOLE)


@pytest.mark.parametrize("wrong", [{}, {"limit_bytes": "much", "within_s": 1}])
async def test_allowance_must_be_one(hosts, demo_models, wrong):
    host = await hosts.load("llama", options=gguf(demo_models))
    with pytest.raises(HostFailedError, match="not an allowance"):
        await host._request("save", **wrong)
    assert await host.save(**WHOLE) == (0, 0)  # it keeps none


# --- MLX, without a model ---------------------------------------------------------------------


def state(tokens, *, trimmable=True):
    """Key-value state of *tokens*, one layer that tells them; not trimmable: a recurrent one."""
    import mlx.core as mx
    from mlx_lm.models.cache import ArraysCache, KVCache

    numbers = mx.array(tokens, dtype=mx.float32)
    if trimmable:
        layer = KVCache()
        layer.update_and_fetch(numbers.reshape(1, 1, -1, 1), numbers.reshape(1, 1, -1, 1))
    else:
        layer = ArraysCache(1)
        layer[0] = numbers
    return [layer]


@pytest.fixture
def states(short_dir):
    """Makes `SavedStates` of one directory: as each host does."""
    MlxEngine(None).prepare()
    from llmd.hosts.mlx_saved import SavedStates

    return lambda: SavedStates(short_dir / "prompts")


def save(states, *prompts, **kind):
    allowance = Allowance(2**30, 30.0)
    states.save([(tokens, state(tokens, **kind)) for tokens in prompts], allowance)
    return allowance.prompts


LONG = list(range(1000, 1000 + 3 * MIN_TOKENS))


@pytest.mark.parametrize(
    ("prompt", "beyond", "spared"),
    [
        pytest.param([*LONG, 1, 2], 0, len(LONG), id="it goes on"),
        pytest.param(LONG, 0, len(LONG) - 1, id="one token is left to be processed"),
        pytest.param([*LONG[:500], 1], 0, 500, id="cut back to where they differ"),
        pytest.param([*LONG[:MIN_TOKENS], 1], 0, MIN_TOKENS, id="just worth it"),
        pytest.param([*LONG[: MIN_TOKENS - 1], 1], 0, None, id="not worth it"),
        pytest.param([*LONG, 1], len(LONG) - MIN_TOKENS + 1, None, id="memory has nearly as much"),
        pytest.param([*LONG, 1], len(LONG) - MIN_TOKENS, len(LONG), id="memory has less"),
        pytest.param([1, *LONG], 0, None, id="another prompt"),
        pytest.param([], 0, None, id="no prompt"),
    ],
)
def test_state_that_spares_most_is_read(states, prompt, beyond, spared):
    save(states(), LONG)
    found = states().nearest(prompt, beyond=beyond)
    if spared is None:
        assert found is None
        return
    [layer], rest = found
    assert rest == prompt[spared:]
    keys, _ = layer.keys_and_values() if hasattr(layer, "keys_and_values") else (layer.keys, None)
    assert layer.offset == spared
    assert keys.reshape(-1).tolist()[:spared] == LONG[:spared]


@pytest.mark.parametrize(
    ("prompt", "spared"),
    [([*LONG, 1], len(LONG)), ([*LONG[:-1], 1], None), (LONG, None)],
)
def test_state_that_cannot_be_cut_back_serves_what_begins_with_all_of_it(states, prompt, spared):
    save(states(), LONG, trimmable=False)
    found = states().nearest(prompt, beyond=0)
    assert (found is None) is (spared is None)
    if found is not None:
        assert found[1] == prompt[spared:]


@pytest.mark.parametrize(("trimmable", "left"), [(True, 1), (False, 2)])
def test_beginning_of_a_longer_prompt_is_not_kept_twice(states, short_dir, trimmable, left):
    kept = states()
    save(kept, LONG[:300], trimmable=trimmable)
    save(kept, LONG, trimmable=trimmable)
    assert len(files(short_dir)) == left
    assert save(states(), LONG[:300], LONG, trimmable=trimmable) == 0, "both are there"


@pytest.mark.parametrize(
    "use",
    [
        pytest.param(lambda states: states.nearest([*LONG, 1], beyond=0), id="it was read"),
        pytest.param(lambda states: save(states, LONG), id="it would be saved again"),
    ],
)
def test_file_that_is_of_use_is_kept_longer(states, short_dir, use):
    save(states(), LONG)
    [file] = files(short_dir)
    os.utime(file, (1, 1))
    use(states())
    assert file.stat().st_mtime > 1


def test_disk_that_is_full_loses_what_it_must(states, short_dir, monkeypatch):
    from llmd.hosts import mlx_saved

    def full(file, *_):
        with open(file, "wb") as unfinished:  # noqa: PTH123 - as it is done there
            unfinished.write(b"some")
        raise RuntimeError("[Write] no space left")

    kept = states()
    monkeypatch.setattr(mlx_saved, "save_prompt_cache", full)
    assert save(kept, LONG) == 0
    assert files(short_dir) == []


@pytest.mark.parametrize(
    ("in_memory", "spared"),
    [
        pytest.param(LONG[:200], 500, id="the file has more"),
        pytest.param(LONG[:600], 600, id="memory has more"),
        pytest.param(LONG[:400], 400, id="the file has hardly more"),
    ],
)
def test_memory_comes_before_the_disk(states, in_memory, spared):
    from llmd.hosts.mlx_caches import PromptCache

    save(states(), LONG[:500])
    cache = PromptCache(9, 2**30, states())
    cache.insert_cache("m", in_memory, state(in_memory))
    _, rest = cache.fetch_nearest_cache("m", LONG)
    assert rest == LONG[spared:]


def test_newest_of_each_kind_is_saved_first(states):
    from llmd.hosts.mlx_caches import PromptCache

    prompts = {name: [*LONG[:300], n] for n, name in enumerate("abcd")}
    cache = PromptCache(9, 2**30, states())
    for name, kind in [("a", "assistant"), ("b", "assistant"), ("c", "system"), ("d", "assistant")]:
        cache.insert_cache("m", prompts[name], state(prompts[name]), cache_type=kind)
    order = []
    cache.saved.save = lambda found, _: order.extend(tokens for tokens, _ in found)
    cache.save(Allowance(1, 1))
    assert order == [prompts[name] for name in "dcba"]


# --- room and time ----------------------------------------------------------------------------


def test_allowance_believes_the_disk_once_it_has_shown_its_speed(tmp_path, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(saved_prompts.time, "monotonic", lambda: clock[0])
    allowance = Allowance(2 * 10**9, 2.0)
    assert allowance.admits(1.9e9)
    assert not allowance.admits(2.1e9)
    file = tmp_path / "written"
    with file.open("wb") as sparse:
        sparse.truncate(10**8)
    clock[0] = 1.0
    allowance.spend(file)
    assert (allowance.prompts, allowance.bytes) == (1, 10**8)
    assert allowance.admits(0.9e8)
    assert not allowance.admits(1.1e8), "a tenth of what was believed, and one second left"
    clock[0] = 2.5
    assert not allowance.admits(1)


def test_place_is_cleared_of_what_was_not_finished(tmp_path):
    directory = place(tmp_path / "a" / "b")
    for name in ("new-1.safetensors", "slot-0.state"):
        (directory / name).write_text("")
    place(directory)
    assert [file.name for file in directory.iterdir()] == ["slot-0.state"]


@pytest.mark.parametrize("whose", ["everybody's", "a group's", "another user's", "a link"])
def test_place_that_is_not_ours_alone_is_not_used(tmp_path, monkeypatch, whose):
    directory = tmp_path / "prompts"
    directory.mkdir(mode=0o700)
    match whose:
        case "everybody's":
            directory.chmod(0o777)
        case "a group's":
            directory.chmod(0o770)
        case "a link":
            directory.rename(tmp_path / "elsewhere")
            directory.symlink_to(tmp_path / "elsewhere")
        case _:
            monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(PermissionError):
        place(directory)


async def test_prompts_of_a_place_that_is_not_ours_alone_are_not_read(start, short_dir):
    said, file = await saved(start, short_dir)
    file.parent.chmod(0o777)
    host = await start()
    assert ask(host, PROMPT) == (said, 0)
    assert await host.save(**WHOLE) == (0, 0)


def test_what_was_used_last_comes_first(tmp_path):
    for name, at_s in [("a.x", 2), ("b.x", 3), ("c.x", 1), ("d.y", 9)]:
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (at_s, at_s))
    (tmp_path / "deleted meanwhile.x").symlink_to("nowhere")
    assert [file.name for file in newest_first(tmp_path, "*.x")] == ["b.x", "a.x", "c.x"]
    saved_prompts.used(tmp_path / "c.x")
    assert newest_first(tmp_path, "*.x")[0].name == "c.x"
    saved_prompts.used(tmp_path / "gone.x")
    saved_prompts.forget(tmp_path / "gone.x")


def test_metadata_tells_tokens_as_written(states, short_dir):
    """Pictures are negative numbers beyond 32 bits in what mlx_lm compares prompts by."""
    tokens = [-(2**59), *LONG]
    save(states(), tokens)
    [file] = files(short_dir)
    size = int.from_bytes(file.read_bytes()[:8], "little")
    header = json.loads(file.read_bytes()[8 : 8 + size])
    assert header["__metadata__"]["0.tokens"].startswith(f"{-(2**59)} 1000 ")
    assert states().nearest([*tokens, 1], beyond=0)[1] == [1]
