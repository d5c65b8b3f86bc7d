"""The daemon's side of a host: real processes, from start or adoption to the reaping."""

import asyncio
import contextlib
import os
import stat

import psutil
import pytest
import uvloop

from llmd.errors import ConfigError
from llmd.hosts.protocol import Launch
from llmd.platform.spawn import Exit
from llmd.runtime.control import socket_path
from llmd.runtime.host_log import last_lines, rotate_log
from llmd.runtime.host_process import HostFailedError, HostProcess
from tests.hosts.conftest import Hosts, command
from tests.hosts.talk import connected


@pytest.fixture
async def hosts(short_dir):
    running = Hosts(short_dir)
    yield running
    await running.end()


def launch(*flags, load_timeout_s=20.0, **options):
    return Launch("lab", "exec", command(*flags, **options), {}, load_timeout_s)


async def test_host_answers_once_it_is_started(hosts):
    host = await hosts.start("exec")
    assert (host.state, host.upstream) == ("idle", None)
    assert psutil.Process(host.pid).ppid() == os.getpid()
    assert os.getpgid(host.pid) == host.pid


async def test_sockets_and_log_are_private(hosts, short_dir):
    host = await hosts.start("exec")
    control = socket_path(short_dir, host.instance, "c")
    assert stat.S_IMODE(control.stat().st_mode) == 0o600
    assert stat.S_IMODE(host.log.path.stat().st_mode) == 0o600


async def test_loaded_host_serves_at_its_upstream(hosts):
    host = await hosts.start("exec")
    upstream = await host.load(launch(), "f1")
    assert (host.state, host.fingerprint, host.upstream) == ("ready", "f1", upstream)
    with connected(upstream) as connection:
        assert connection.chat("hi")["choices"][0]["message"]["content"].startswith("w0 ")
    assert (await host.status())["state"] == "ready"


async def test_host_that_cannot_start_is_told_with_its_exit_and_log(short_dir):
    with pytest.raises(HostFailedError) as caught:
        await HostProcess.start(
            "exec",
            directory=short_dir,
            log_path=short_dir / "host.log",
            orphan_grace_s=1,
            program=("-c", "print('no such luck'); raise SystemExit(5)"),
        )
    failure = caught.value.failure
    assert (failure.exit_code, failure.signal) == (5, None)
    assert failure.log_tail == ("no such luck",)


async def test_host_that_says_nothing_is_given_up_and_reaped(short_dir):
    with pytest.raises(HostFailedError, match="did not answer"):
        await HostProcess.start(
            "exec",
            directory=short_dir,
            log_path=short_dir / "host.log",
            orphan_grace_s=1,
            program=("-c", "import os, signal; print(os.getpid(), flush=True); signal.pause()"),
            timeout_s=0.5,
        )
    assert not psutil.pid_exists(int((short_dir / "host.log").read_text()))


async def test_cancelled_start_leaves_no_process(short_dir):
    async def start():
        await HostProcess.start(
            "exec",
            directory=short_dir,
            log_path=short_dir / "host.log",
            orphan_grace_s=1,
            program=("-c", "import os, signal; print(os.getpid(), flush=True); signal.pause()"),
        )

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.5):
            await start()
    assert not psutil.pid_exists(int((short_dir / "host.log").read_text()))


async def test_path_that_is_too_long_for_a_socket_is_refused_by_name(short_dir):
    directory = short_dir / ("d" * 90)
    directory.mkdir()
    with pytest.raises(ConfigError, match="socket path"):
        await HostProcess.start(
            "exec", directory=directory, log_path=short_dir / "host.log", orphan_grace_s=1
        )


async def test_failed_load_tells_the_servers_exit_status_and_last_words(hosts):
    host = await hosts.start("exec")
    with pytest.raises(HostFailedError) as caught:
        await host.load(launch("--crash-at-start", "7", "--last-words", "no room"), "f1")
    failure = caught.value.failure
    assert failure.exit_code == 7
    assert "no room" in failure.log_tail
    assert host.state == "failed"
    assert await host.stop(grace_s=5) == Exit(code=0)


async def test_load_that_takes_too_long_failed(hosts):
    host = await hosts.start("exec")
    with pytest.raises(HostFailedError, match=r"longer than load_timeout|within load_timeout"):
        await host.load(launch("--never-ready", load_timeout_s=0.3), "f1")


async def test_progress_is_reported_as_the_host_tells_it(short_dir):
    # A host that speaks the protocol and no more.
    program = """
import json, os, socket, sys
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
listener = socket.socket(socket.AF_UNIX); listener.bind(words["--control"]); listener.listen()
stream = listener.accept()[0].makefile("rw")
for line in stream:
    asked = json.loads(line)
    answer = {"id": asked["id"], "ok": True}
    if asked["op"] == "hello":
        answer |= {"protocol": 1, "instance": words["--instance"], "pid": os.getpid()}
    else:
        for fraction in (0.25, 0.75):
            told = {"id": asked["id"], "event": "progress", "fraction": fraction}
            print(json.dumps(told), file=stream)
        answer["upstream"] = {"path": "/nowhere"}
    print(json.dumps(answer), file=stream, flush=True)
"""
    host = await HostProcess.start(
        "mlx",
        directory=short_dir,
        log_path=short_dir / "host.log",
        orphan_grace_s=1,
        program=("-c", program),
    )
    heard = []
    upstream = await host.load(Launch("p", "mlx"), "f1", heard.append)
    assert heard == [0.25, 0.75]
    assert upstream.path == "/nowhere"
    await host.stop(grace_s=5)


async def test_stopped_host_is_reaped_and_its_sockets_are_gone(hosts, short_dir):
    host = await hosts.start("exec")
    assert await host.stop(grace_s=5) == Exit(code=0)
    assert host.exited.result() == Exit(code=0)
    assert not list(short_dir.glob("*.sock"))
    assert await host.stop(grace_s=5) == Exit(code=0)  # and again


async def test_deaf_server_is_killed_after_the_grace_with_its_helpers(hosts):
    host = await hosts.start("exec")
    await host.load(launch("--deaf", "--children", "2"), "f1")
    family = psutil.Process(host.pid).children(recursive=True)
    assert len(family) == 3
    assert await host.stop(grace_s=0.2) == Exit(signal="SIGKILL")
    _, alive = psutil.wait_procs(family, timeout=5)
    assert not [p for p in alive if p.status() != psutil.STATUS_ZOMBIE]


async def test_cancelled_stop_goes_on_by_itself(hosts):
    host = await hosts.start("exec")
    await host.load(launch("--deaf"), "f1")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await host.stop(grace_s=0.3)
    assert not host.exited.done()
    assert await asyncio.wait_for(host.exited, 10) == Exit(signal="SIGKILL")


async def test_crash_of_the_server_is_the_hosts_exit(hosts):
    host = await hosts.start("exec")
    upstream = await host.load(launch("--crash-after", "1", "--crash-code", "3"), "f1")
    with connected(upstream) as connection, contextlib.suppress(OSError):
        connection.ask("POST", "/v1/completions", {"prompt": "x"}).close()
    assert await asyncio.wait_for(host.exited, 10) == Exit(code=3)
    failure = host.failure()
    assert failure.exit_code == 3
    assert "unruly: giving up" in failure.log_tail


async def test_killed_host_fails_what_waits_for_it(hosts):
    host = await hosts.start("exec")
    loading = asyncio.ensure_future(host.load(launch("--never-ready"), "f1"))
    await host.status()  # the load was sent before
    host.kill()
    with pytest.raises(HostFailedError, match="ended during load") as caught:
        await loading
    assert caught.value.failure.signal == "SIGKILL"
    with pytest.raises(HostFailedError):
        await host.status()


async def test_live_host_is_adopted_as_it_is(hosts):
    host = await hosts.start("exec")
    upstream = await host.load(launch(), "f1")
    host.detach()
    adopted = await hosts.adopt(host)
    assert (adopted.state, adopted.fingerprint, adopted.upstream) == ("ready", "f1", upstream)
    # Both are in one process here, and only one of them can collect the child.
    ends = {await adopted.stop(grace_s=5), await asyncio.wait_for(host.exited, 10)}
    assert ends == {Exit(), Exit(code=0)}


async def test_stranger_is_not_adopted_and_not_harmed(hosts):
    host = await hosts.start("exec")
    other = await hosts.start("exec", log="other.log")
    with pytest.raises(HostFailedError, match="another program"):
        await hosts.adopt(host, pid=other.pid)
    assert (await host.status())["state"] == "idle"
    assert (await other.status())["state"] == "idle"


async def test_host_that_is_gone_is_not_adopted(hosts):
    host = await hosts.start("exec")
    await host.stop(grace_s=5)
    with pytest.raises(HostFailedError):
        await hosts.adopt(host)


def test_everything_works_under_uvloop(short_dir):
    async def run():
        hosts = Hosts(short_dir)
        host = await hosts.start("exec")
        await host.load(launch(), "f1")
        return await host.stop(grace_s=5)

    assert uvloop.run(run()) == Exit(code=0)


async def test_environment_is_what_was_given(hosts, short_dir):
    host = await HostProcess.start(
        "exec",
        directory=short_dir,
        log_path=short_dir / "host.log",
        orphan_grace_s=5,
        env={"PATH": os.environ["PATH"], "MARK": "here"},
    )
    hosts.started.append(host)
    environment = psutil.Process(host.pid).environ()
    assert environment["MARK"] == "here"
    assert "HOME" not in environment


async def test_log_of_a_spare_becomes_the_profiles(hosts, short_dir):
    (short_dir / "lab.log").write_text("earlier\n")
    host = await hosts.start("exec", log="spare.log")
    host.log.rename(short_dir / "lab.log")
    with pytest.raises(HostFailedError) as caught:
        await host.load(launch("--crash-at-start", "1"), "f1")
    assert "unruly: giving up" in caught.value.failure.log_tail
    assert (short_dir / "lab.log.1").read_text() == "earlier\n"
    assert not (short_dir / "spare.log").exists()


def test_log_tail_is_of_this_run_only(tmp_path):
    path = tmp_path / "log"
    path.write_text("old\n\nnew 1\nnew 2\n\n")
    assert last_lines(path, 5, begins_at=4) == ("new 1", "new 2")
    assert last_lines(path, 1) == ("new 2",)
    assert last_lines(tmp_path / "none", 5) == ()


def test_long_log_is_moved_away_and_a_short_one_kept(tmp_path):
    path = tmp_path / "log"
    path.write_text("x" * 100)
    rotate_log(path, limit_bytes=100)
    assert path.exists()
    rotate_log(path, limit_bytes=99)
    assert not path.exists()
    assert (tmp_path / "log.1").read_text() == "x" * 100


async def test_python_of_the_host_may_be_chosen(short_dir):
    with pytest.raises(FileNotFoundError):
        await HostProcess.start(
            "exec",
            directory=short_dir,
            log_path=short_dir / "host.log",
            orphan_grace_s=1,
            python=short_dir / "python",
        )
