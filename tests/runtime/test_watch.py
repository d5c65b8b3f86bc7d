"""One round of looking around: what is found, and who is told."""

import asyncio
import contextlib
from types import SimpleNamespace

import pytest

from llmd.core.events import PressureRose, Ticked
from llmd.errors import ConfigError
from llmd.runtime import watch as watching
from llmd.runtime.config_file import ConfigFile
from llmd.runtime.host_log import LOG_MAX_BYTES, TAIL_BYTES, older
from llmd.runtime.watch import MEASURE_IDLE_S, PRESSURE_PAUSE_S, SERVICE_LOG, Watch


GOOD = "profiles: {a: {engine: mlx, model: m, port: 8081}}"


class FakeHosting(list):
    """Hosts that are measured by being remembered."""

    def __init__(self):
        self.measured = []

    def measure(self, host):
        self.measured.append(host)


class FakeDaemon:
    def __init__(self, log_dir):
        self.log_dir = log_dir
        self.hosting = FakeHosting()
        self.config = SimpleNamespace(watch_config=True, keep_awake=False)
        self.events = []
        self.scheduler = SimpleNamespace(busy=False)
        self.recorded = 0
        self.dispatched = 0

    def record(self):
        self.recorded += 1

    def dispatch(self, event):
        self.dispatched += 1
        self.events.append(event)


class FakeKeepAwake:
    def __init__(self):
        self.busy = None
        self.minded = asyncio.Event()
        self.released = False

    def mind(self, *, busy):
        self.busy = busy
        self.minded.set()

    def release(self):
        self.released = True


class World:
    """A daemon, a file, a clock, pressure as set, and the watch over them."""

    def __init__(self, path):
        self.file = path / "llmd.yaml"
        self.file.write_text(GOOD)
        self.config_file = ConfigFile(self.file, path / "state")
        self.config_file.begin()
        self.daemon = FakeDaemon(path)
        self.keep_awake = FakeKeepAwake()
        self.pressure = None
        self.now = 1000.0
        self.reloads = 0
        self.beats = 0
        self.minded = 0
        self.watch = Watch(
            self.daemon,
            self.config_file,
            self.reload,
            beat=self.beat,
            mind_hosts=self.mind_hosts,
            pressure=lambda: self.pressure,
            keep_awake=self.keep_awake,
            now=lambda: self.now,
        )

    def beat(self):
        self.beats += 1

    def mind_hosts(self):
        self.minded += 1

    async def reload(self):
        self.reloads += 1
        with contextlib.suppress(ConfigError):
            await self.config_file.read()

    async def look(self):
        self.daemon.events.clear()
        await self.watch.look()
        return self.daemon.events


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


async def test_each_round_ticks_first_so_that_a_sleep_is_noticed(world):
    world.pressure = "none left"
    assert await world.look() == [Ticked(), PressureRose("none left")]


async def test_pressure_is_told_again_only_after_a_pause(world):
    world.pressure = "none left"
    await world.look()
    world.now += PRESSURE_PAUSE_S - 1
    assert PressureRose("none left") not in await world.look()
    world.now += 1
    assert PressureRose("none left") in await world.look()


async def test_hosts_are_minded_each_round(world):
    await world.look()
    await world.look()
    assert world.minded == 2


async def test_hosts_are_measured_and_their_logs_kept_short(world):
    shortened = []
    shortening = SimpleNamespace(shorten=lambda: shortened.append(1))
    loaded = SimpleNamespace(process=SimpleNamespace(log=shortening))
    remote = SimpleNamespace(process=None)
    world.daemon.hosting.extend([loaded, remote])
    await world.look()
    assert world.daemon.hosting.measured == [loaded, remote]
    assert shortened == [1]


async def test_idle_hosts_are_measured_less_often_than_busy_ones(world):
    world.daemon.hosting.append(SimpleNamespace(process=None))
    measured = world.daemon.hosting.measured
    await world.look()
    world.now += MEASURE_IDLE_S - 1
    await world.look()
    assert len(measured) == 1
    world.daemon.scheduler.busy = True
    await world.look()
    assert len(measured) == 2
    world.daemon.scheduler.busy = False
    world.now += MEASURE_IDLE_S
    await world.look()
    assert len(measured) == 3


async def test_what_the_service_prints_is_kept_short(world):
    log = world.daemon.log_dir / SERVICE_LOG
    log.write_bytes(b"x" * (LOG_MAX_BYTES + 1))
    await world.look()
    assert log.stat().st_size == TAIL_BYTES
    assert older(log).stat().st_size == LOG_MAX_BYTES


async def test_changed_file_is_read_again_once(world):
    await world.look()
    world.file.write_text("second, and bad")
    await world.look()
    await world.look()
    assert world.reloads == 1


async def test_file_that_is_being_replaced_is_read_when_it_is_back(world):
    world.file.unlink()
    await world.look()
    assert world.reloads == 0
    world.file.write_text(GOOD)
    await world.look()
    assert world.reloads == 1


async def test_changed_file_is_left_alone_where_the_configuration_says_so(world):
    world.daemon.config.watch_config = False
    world.file.write_text("second, and bad")
    await world.look()
    assert world.reloads == 0


@pytest.mark.parametrize(
    ("wanted", "busy", "kept"),
    [
        pytest.param(True, True, True, id="there is work"),
        pytest.param(True, False, False, id="idle"),
        pytest.param(False, True, False, id="nobody asked for it"),
    ],
)
async def test_machine_is_kept_awake_for_work_if_that_is_wanted(world, wanted, busy, kept):
    world.daemon.config.keep_awake = wanted
    world.daemon.scheduler.busy = busy
    await world.look()
    assert world.keep_awake.busy is kept


async def test_machine_is_let_go_when_the_watch_ends(world, monkeypatch):
    monkeypatch.setattr(watching, "ROUND_S", 0)
    running = asyncio.ensure_future(world.watch.run())
    await world.keep_awake.minded.wait()
    running.cancel()
    await asyncio.wait([running])
    assert world.keep_awake.released


async def test_each_round_tells_the_service_manager(world):
    await world.look()
    await world.look()
    assert world.beats == 2


async def test_ledger_is_looked_at_where_something_may_have_changed(world):
    await world.look()
    assert world.daemon.recorded == 1
    await world.look()
    assert world.daemon.recorded == 1, "nothing has happened but the tick"
    world.daemon.dispatch("something")
    await world.look()
    assert world.daemon.recorded == 2
    world.pressure = "short"
    await world.look()
    assert world.daemon.recorded == 3


@pytest.mark.parametrize(
    ("beat_s", "busy_s", "idle_s"), [(None, 2.0, 4.0), (30.0, 2.0, 4.0), (0.5, 0.5, 0.5)]
)
async def test_rounds_are_no_further_apart_than_needed(tmp_path, beat_s, busy_s, idle_s):
    file = ConfigFile(tmp_path / "f", tmp_path)
    daemon = FakeDaemon(tmp_path)
    daemon.config.watch_config = False
    watch = Watch(daemon, file, None, beat_s=beat_s, keep_awake=FakeKeepAwake())
    for daemon.scheduler.busy, pause_s in ((True, busy_s), (False, idle_s), (True, busy_s)):
        await watch.look()
        assert watch.pause_s == pause_s
