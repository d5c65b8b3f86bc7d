"""`llmd-ctl pull`, against a hub of our own that breaks off, lies, refuses and stalls."""

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys

import pytest
from huggingface_hub import constants, file_download

from llmd.cli.main import run
from llmd.config.load import load_config
from llmd.hub import destination as destinations
from llmd.weights.discover import discover
from llmd.weights.projector import PROJECTOR_COMPUTE_BYTES
from tests.admin.fake_operator import served
from tests.cli.fake_hub import REVISION, hub_running
from tests.weights.making import QWEN, gguf_bytes, safetensors_bytes, safetensors_header


MODEL = gguf_bytes(tensors={"token_embd.weight": ("F16", (64, 4000))})
OTHER = gguf_bytes()
MLX = {
    "config.json": json.dumps(QWEN).encode(),
    "tokenizer.json": b"{}",
    "model.safetensors": safetensors_bytes(
        *safetensors_header({"model.embed_tokens.weight": ("F16", (100, 64))})
    ),
    "README.md": b"# read me",
    "original/model.safetensors": b"not needed",
    "pytorch_model.bin": b"not needed either",
}
MIB = 2**20


@pytest.fixture
def hub(home, monkeypatch):
    """A hub with a GGUF repository of three quantizations, and one of MLX weights."""
    with hub_running() as hub:
        hub.add(
            "org/New-GGUF",
            {
                "New-Q8_0.gguf": MODEL,
                "New-Q4_K_M.gguf": OTHER,
                "New-IQ2_XS.gguf": OTHER,
                "README.md": b"",
            },
        )
        hub.add(
            "org/Seeing-GGUF",
            {"q/See-Q8_0.gguf": MODEL, "mmproj-F32.gguf": OTHER, "mmproj-F16.gguf": OTHER},
        )
        hub.add("org/New-4bit", MLX)
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("NO_PROXY", "*")
        monkeypatch.setattr(file_download.time, "sleep", lambda _: None)  # between attempts
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 4096)
        yield hub


def found(home, name):
    return next(w for w in discover([home / "models"]) if w.name == name)


def partials(home):
    return [path for path in home.rglob("*") if path.name.endswith((".incomplete", ".part"))]


def test_quantization_for_the_budget_is_chosen_named_and_downloaded_alone(home, hub, capsys):
    assert run(["pull", "org/New-GGUF"]) == 0
    said = capsys.readouterr()
    assert said.err.splitlines()[0].startswith("Q8_0, 501 KiB: it takes less than a quarter of")
    assert "org/New-GGUF, Q8_0, 501 KiB: complete, and every checksum is right" in said.out
    assert hub.ranges == [("New-Q8_0.gguf", None)]
    path = found(home, "org/New-GGUF/New-Q8_0.gguf").path
    assert path.read_bytes() == MODEL
    assert str(path) in said.out
    assert said.out.endswith("llmd-ctl fit org/New-GGUF/New-Q8_0.gguf\n")
    assert (home / "hub" / "models--org--New-GGUF" / "refs" / "main").read_text() == REVISION


def test_what_huggingface_hub_downloads_itself_lies_in_the_same_places(home, hub):
    assert run(["pull", "org/New-4bit", "--json"]) == 0
    cached = file_download.try_to_load_from_cache(
        "org/New-4bit", "model.safetensors", cache_dir=home / "hub"
    )
    assert cached == str(found(home, "org/New-4bit").path / "model.safetensors")


def test_mlx_repository_is_downloaded_whole_but_for_what_no_one_reads(home, hub, capsys):
    assert run(["pull", "org/New-4bit", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["quantization"] == "mlx"
    assert set(report["files"]) == {"config.json", "tokenizer.json", "model.safetensors"}
    assert run(["fit", "org/New-4bit"]) == 0


def test_named_quantization_is_taken_whatever_the_budget(hub, capsys):
    assert run(["pull", "org/New-GGUF:q4_k_m"]) == 0
    assert hub.ranges == [("New-Q4_K_M.gguf", None)]


def test_folder_of_models_gets_files_under_their_names(home, hub, capsys):
    assert run(["pull", "org/New-GGUF:New-IQ2_XS.gguf", "--dir", str(home / "models")]) == 0
    path = home / "models" / "org" / "New-GGUF" / "New-IQ2_XS.gguf"
    assert path.read_bytes() == OTHER
    assert found(home, "org/New-GGUF/New-IQ2_XS.gguf").path == path
    assert partials(home) == []


def test_all_shards_of_a_quantization_are_downloaded(home, hub, capsys):
    shards = {f"Q4_K_M/Big-Q4_K_M-{n:05d}-of-00002.gguf": OTHER for n in (1, 2)}
    hub.add("org/Big", {**shards, "Q8_0/Big-Q8_0-00001-of-00001.gguf": MODEL})
    assert run(["pull", "org/Big:Q4_K_M", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["files"] == list(shards)
    [big] = [w for w in discover([]) if w.format == "gguf"]
    assert big.size_bytes == 2 * len(OTHER)


@pytest.mark.parametrize(
    ("answer", "file", "code"),
    [("\n", "New-Q8_0.gguf", 0), ("q4_k_m\n", "New-Q4_K_M.gguf", 0), ("Q5\n", None, 2)],
)
def test_person_at_a_terminal_is_asked_which_one(hub, answer, file, code):
    ours, theirs = os.openpty()
    pull = subprocess.Popen(
        [sys.executable, "-m", "llmd.cli.main", "pull", "org/New-GGUF"],
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    with pull:
        shown = b""
        while b"which one [Q8_0]: " not in shown:
            shown += os.read(ours, 4096)
        os.write(ours, answer.encode())
        with contextlib.suppress(OSError):  # Linux says so when nobody writes any more
            while more := os.read(ours, 4096):
                shown += more
        os.close(ours)
    assert b"there are also IQ2_XS 13.1 KiB, Q4_K_M 13.1 KiB" in shown
    assert pull.returncode == code
    assert [name for name, _ in hub.ranges] == ([file] if file else [])
    assert file is None or b"downloading" in shown


# --- what breaks --------------------------------------------------------------------------------


def test_connection_that_breaks_off_is_made_again_from_where_it_stopped(home, hub):
    hub.break_after = [100_000, 100_000]
    assert run(["pull", "org/New-GGUF:Q8_0"]) == 0
    starts = [int(ranged[6:-1]) for _, ranged in hub.ranges[1:]]
    assert 90_000 < starts[0] < starts[1] <= 200_000
    assert found(home, "org/New-GGUF/New-Q8_0.gguf").path.read_bytes() == MODEL


def test_download_that_gave_up_goes_on_at_the_next_attempt(home, hub, capsys):
    hub.break_after = [200_000, *[0] * 6]
    assert run(["pull", "org/New-GGUF:Q8_0"]) == 1
    err = capsys.readouterr().err.splitlines()[-1]
    assert err.startswith("llmd-ctl: 127.0.0.1 cannot be reached, or the connection broke off")
    assert err.endswith("repeat the command: it goes on where it stopped")
    [partial] = partials(home)
    kept = partial.stat().st_size
    assert kept > 190_000
    hub.requests.clear()
    hub.break_after.clear()
    assert run(["pull", "org/New-GGUF:Q8_0"]) == 0
    assert hub.ranges == [("New-Q8_0.gguf", f"bytes={kept}-")]
    assert partials(home) == []


def test_hub_that_knows_no_ranges_sends_it_all_again(home, hub):
    hub.ignore_ranges = True
    hub.break_after = [100_000]
    assert run(["pull", "org/New-GGUF:Q8_0"]) == 0
    assert found(home, "org/New-GGUF/New-Q8_0.gguf").path.read_bytes() == MODEL


def test_connection_that_stalls_is_given_up(home, hub, capsys, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.05)
    hub.stall_after = 0
    assert run(["pull", "org/New-GGUF:Q8_0"]) == 1
    assert "the connection broke off" in capsys.readouterr().err


@pytest.mark.parametrize("folder", [[], ["--dir", "here"]], ids=["cache", "folder"])
def test_wrong_checksum_is_told_and_what_came_is_deleted(home, hub, capsys, folder, monkeypatch):
    monkeypatch.chdir(home)
    hub.lies["New-Q8_0.gguf"] = "ab" * 32
    assert run(["pull", "org/New-GGUF:Q8_0", *folder]) == 1
    err = capsys.readouterr().err
    assert "New-Q8_0.gguf is not what the hub says it is" in err
    assert "should be abababababab…; it was deleted; repeat the command" in err
    assert partials(home) == []
    assert not list(home.rglob("New-Q8_0.gguf"))


def test_small_files_are_checked_as_well(home, hub, capsys):
    assert run(["pull", "org/New-4bit"]) == 0
    blob = (found(home, "org/New-4bit").path / "tokenizer.json").resolve()
    blob.write_bytes(b"[]")
    assert run(["pull", "org/New-4bit"]) == 1
    assert "tokenizer.json is not what the hub says it is" in capsys.readouterr().err
    assert run(["pull", "org/New-4bit"]) == 0
    assert blob.read_bytes() == b"{}"


def test_partial_file_that_is_too_long_is_begun_anew(home, hub):
    hub.break_after = [100_000, *[0] * 6]
    assert run(["pull", "org/New-GGUF:Q8_0"]) == 1
    [partial] = partials(home)
    partial.write_bytes(bytes(2 * len(MODEL)))
    assert run(["pull", "org/New-GGUF:Q8_0"]) == 0


def test_second_pull_of_the_same_file_does_not_write_into_the_first(home, hub, capsys):
    import fcntl

    hub.break_after = [100_000, *[0] * 6]
    run(["pull", "org/New-GGUF:Q8_0"])
    [partial] = partials(home)
    with partial.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert run(["pull", "org/New-GGUF:Q8_0"]) == 1
    assert "New-Q8_0.gguf is being downloaded already; wait for" in capsys.readouterr().err


def test_ctrl_c_keeps_what_has_arrived_and_says_how_to_go_on(home, hub):
    hub.add("org/Large", {"Large-Q8_0.gguf": gguf_bytes() + bytes(4 * MIB)})
    hub.stall_after = 3 * MIB
    pull = subprocess.Popen(
        [sys.executable, "-m", "llmd.cli.main", "pull", "org/Large"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with pull:
        assert hub.sent.wait(20)
        while not partials(home) or partials(home)[0].stat().st_size < 3 * MIB:
            os.sched_yield()
        pull.send_signal(signal.SIGINT)
        out, err = pull.communicate(timeout=20)
    assert (pull.returncode, out) == (130, "")
    assert err.strip().splitlines()[-1] == (
        "3 MiB of 4.0 MiB are there and stay; go on with: llmd-ctl pull org/Large:Q8_0"
    )
    hub.stall_after = None
    assert run(["pull", "org/Large"]) == 0
    assert hub.ranges[-1] == ("Large-Q8_0.gguf", f"bytes={3 * MIB}-")


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "refuse", "says"),
    [
        ("org/Nothing", None, "there is no repository org/Nothing at"),
        ("org/Secret", (404, "RepoNotFound"), "or it is private; check its name"),
        ("org/Gated", (403, "GatedRepo"), "org/Gated is gated: its owner wants to know who"),
        ("org/Busy", (429, ""), "answered 429 Too Many Requests; wait a while and repeat"),
        ("org/Down", (503, ""), "answered 503 Service Unavailable; wait a while and repeat"),
        ("no name", None, "'no name' is no name of a repository; write it like"),
        ("../../etc/passwd", None, "is no name of a repository"),
    ],
)
def test_refusal_is_one_line_with_a_way_out(hub, capsys, name, refuse, says):
    if refuse:
        hub.refuse[name] = refuse
    assert run(["pull", name]) == 1
    err = capsys.readouterr().err
    assert says in err
    assert err.count("\n") == 1


def test_token_that_the_hub_does_not_take_is_told_as_such(hub, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_old")
    hub.refuse["org/New-GGUF"] = (401, "")
    assert run(["pull", "org/New-GGUF"]) == 1
    assert "does not accept your token; hf auth login" in capsys.readouterr().err


def test_hub_that_is_not_there_is_one_line(hub, capsys, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert run(["pull", "org/New-GGUF"]) == 1
    err = capsys.readouterr().err
    assert "127.0.0.1 cannot be reached" in err
    assert "HTTPS_PROXY and HF_ENDPOINT" in err


def test_what_is_no_hub_is_one_line(hub, capsys):
    hub.info = lambda name: {"id": name}
    assert run(["pull", "org/New-GGUF"]) == 1
    assert "names no revision of org/New-GGUF" in capsys.readouterr().err


def test_repository_without_weights_is_refused(hub, capsys):
    hub.add("org/Torch", {"pytorch_model.bin": b"x", "config.json": b"{}"})
    assert run(["pull", "org/Torch"]) == 1
    assert "org/Torch holds neither MLX nor GGUF weights" in capsys.readouterr().err


def test_quantization_that_is_not_there_is_refused_with_those_that_are(hub, capsys):
    assert run(["pull", "org/New-GGUF:Q5_K_M"]) == 1
    assert "has no Q5_K_M; it has IQ2_XS, Q4_K_M, Q8_0" in capsys.readouterr().err


def test_file_names_that_lead_elsewhere_are_never_written(home, hub, capsys):
    hub.add("org/Evil", {"../../../evil-Q8_0.gguf": MODEL, "/tmp/evil-Q8_0.gguf": MODEL})
    assert run(["pull", "org/Evil", "--dir", str(home / "a" / "b")]) == 1
    assert "holds neither MLX nor GGUF weights" in capsys.readouterr().err
    assert not list(home.rglob("evil*"))


def test_disk_without_room_is_told_before_anything_is_downloaded(hub, capsys, monkeypatch):
    monkeypatch.setattr(destinations, "KEPT_FREE_BYTES", 2**62)
    assert run(["pull", "org/New-GGUF"]) == 1
    assert "501 KiB are to be downloaded, and" in capsys.readouterr().err
    assert hub.ranges == []


def test_disk_that_gets_full_is_told_and_keeps_what_has_arrived(home, hub, capsys, monkeypatch):
    def full(_url, arriving, **_options):
        arriving.write(b"GGUF")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("llmd.hub.fetch.http_get", full)
    assert run(["pull", "org/New-GGUF:Q8_0"]) == 1
    assert "is full; make room, then repeat the command" in capsys.readouterr().err
    assert [path.read_bytes() for path in partials(home)] == [b"GGUF"]


def test_what_cannot_fit_is_not_downloaded_unless_it_is_named(home, hub, capsys):
    (home / "llmd.yaml").write_text(
        "budget: 100MiB\nprofiles: {a: {engine: mlx, model: m, port: 8081}}"
    )
    assert run(["pull", "org/New-GGUF"]) == 1
    assert "is too large: IQ2_XS, its smallest" in capsys.readouterr().err
    assert run(["pull", "org/New-GGUF:Q4_K_M"]) == 0
    assert "more than the budget of 100 MiB" in capsys.readouterr().err


def test_budget_of_the_running_daemon_counts(home, hub, capsys):
    with served(home / "s"):
        assert run(["pull", "org/New-GGUF"]) == 0
    assert "a quarter of the budget of 48 GiB" in capsys.readouterr().err


# --- tokens -------------------------------------------------------------------------------------


def test_token_is_sent_to_the_hub_and_not_to_where_it_redirects(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.elsewhere = hub.url.replace("127.0.0.1", "localhost")
    assert run(["pull", "org/New-GGUF:Q8_0"]) == 0
    sent = {path.split("/")[1]: token for path, _, token in hub.requests}
    assert sent == {"api": "Bearer hf_secret", "org": "Bearer hf_secret", "cdn": None}


# --- --add --------------------------------------------------------------------------------------


def test_profile_is_added_after_the_download(home, hub, capsys):
    before = (home / "llmd.yaml").read_text()
    assert run(["pull", "org/New-GGUF:Q8_0", "--add", "new", "--port", "8090"]) == 0
    assert (home / "llmd.yaml").read_text() == before + (
        "  new:\n    engine: llama.cpp\n    model: org/New-GGUF/New-Q8_0.gguf\n    port: 8090\n"
    )
    assert "added new on port 8090 to" in capsys.readouterr().out
    assert run(["fit", "new"]) == 0


def test_model_that_sees_comes_with_its_projector_and_the_profile_names_it(home, hub, capsys):
    assert run(["pull", "org/Seeing-GGUF", "--yes", "--add", "eye"]) == 0
    assert "with mmproj-F16.gguf, so that it takes pictures" in capsys.readouterr().err
    profile = load_config(home / "llmd.yaml").profiles["eye"]
    assert profile.model == "org/Seeing-GGUF/q/See-Q8_0.gguf"
    assert profile.projector == "org/Seeing-GGUF/mmproj-F16.gguf"
    assert run(["--json", "fit", "eye"]) == 0
    need = json.loads(capsys.readouterr().out)["need_bytes"]
    assert run(["--json", "fit", "org/Seeing-GGUF/q/See-Q8_0.gguf"]) == 0
    assert need == (
        json.loads(capsys.readouterr().out)["need_bytes"] + len(OTHER) + PROJECTOR_COMPUTE_BYTES
    )


def test_text_only_leaves_the_projector_out(home, hub):
    assert run(["pull", "org/Seeing-GGUF", "--yes", "--text-only", "--add", "blind"]) == 0
    assert load_config(home / "llmd.yaml").profiles["blind"].projector is None
    assert [name for name, _ in hub.ranges] == ["See-Q8_0.gguf"]


def test_profile_of_mlx_weights_gets_the_next_free_port(home, hub):
    assert run(["pull", "org/New-4bit", "--add", "new"]) == 0
    profile = load_config(home / "llmd.yaml").profiles["new"]
    assert (profile.engine, profile.model, profile.port) == ("mlx", "org/New-4bit", 8086)
    assert run(["fit", "new"]) == 0


def test_folder_outside_models_dirs_is_written_as_a_path(home, hub):
    assert run(["pull", "org/New-GGUF:Q8_0", "--dir", str(home / "x"), "--add", "new"]) == 0
    model = load_config(home / "llmd.yaml").profiles["new"].model
    assert model == str(home / "x" / "org" / "New-GGUF" / "New-Q8_0.gguf")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--add", "code"], "code is a profile in"),
        (["--add", "a b"], "'a b' is no name for a profile"),
    ],
)
def test_name_that_cannot_be_is_refused_before_the_download(home, hub, capsys, options, says):
    before = (home / "llmd.yaml").read_text()
    assert run(["pull", "org/New-GGUF:Q8_0", *options]) == 1
    assert says in capsys.readouterr().err
    assert hub.ranges == []
    assert (home / "llmd.yaml").read_text() == before


def test_port_without_a_profile_is_wrong_usage(hub):
    assert run(["pull", "org/New-GGUF", "--port", "8090"]) == 2


def test_failed_download_adds_nothing(home, hub):
    before = (home / "llmd.yaml").read_text()
    hub.lies["New-Q8_0.gguf"] = "ab" * 32
    assert run(["pull", "org/New-GGUF:Q8_0", "--add", "new"]) == 1
    assert (home / "llmd.yaml").read_text() == before
