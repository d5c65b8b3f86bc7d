"""What a daemon begins with when its configuration is bad, and what it keeps for that."""

import os
import stat

import pytest

from llmd.errors import ConfigError, RestartRefusedError
from llmd.runtime.config_file import CHECKS_MAX, ConfigFile


def naming(*names):
    """The text of a configuration of profiles with *names*."""
    profiles = ", ".join(f"{name}: {{engine: mlx, model: m, port: 8081}}" for name in names)
    return f"profiles: {{{profiles}}}"


BAD = "profiles: ["


class Place:
    """A file, a state directory, and daemons that follow one another."""

    def __init__(self, path):
        self.file = path / "llmd.yaml"
        self.state = path / "state"
        self.file.write_text(naming("a"))

    def next(self):
        return ConfigFile(self.file, self.state)

    async def used(self, text):
        """The file of a daemon that *text* was in use by."""
        self.file.write_text(text)
        file = self.next()
        file.begin()
        await file.keep()
        return file


@pytest.fixture
def place(tmp_path):
    return Place(tmp_path)


def names(config):
    return list(config.profiles)


# --- beginning


async def test_good_file_is_used_whatever_was_kept(place):
    await place.used(naming("old"))
    place.file.write_text(naming("new"))
    file = place.next()
    assert names(file.begin(checked=naming("checked"), unattended=True)) == ["new"]
    assert file.fault is None


@pytest.mark.parametrize("spoil", [lambda p: p.write_text(BAD), os.unlink], ids=["bad", "gone"])
async def test_last_good_text_stands_in_for_a_bad_file_and_it_is_told(place, spoil):
    copy = (await place.used(naming("old"))).copy
    spoil(place.file)
    file = place.next()
    assert names(file.begin(unattended=True)) == ["old"]
    assert file.copy == copy
    assert file.fault.startswith("the last good configuration is in use, because ")
    assert str(place.file) in file.fault


async def test_whoever_starts_it_by_hand_is_told_instead(place):
    await place.used(naming("old"))
    place.file.write_text(BAD)
    with pytest.raises(ConfigError, match="problem"):
        place.next().begin()


async def test_what_a_restart_has_checked_comes_before_what_was_kept(place):
    await place.used(naming("old"))
    place.file.write_text(BAD)
    assert names(place.next().begin(checked=naming("checked"), unattended=True)) == ["checked"]


async def test_text_of_another_file_never_stands_in(place):
    await place.used(naming("old"))
    other = ConfigFile(place.file.with_name("other.yaml"), place.state)
    with pytest.raises(ConfigError, match="no configuration"):
        other.begin(unattended=True)


async def test_relative_paths_in_the_copy_are_of_the_files_directory(place):
    text = "profiles: {a: {engine: mlx, model: ./m, port: 8081}}"
    await place.used(text)
    place.file.write_text(BAD)
    config = place.next().begin(unattended=True)
    assert config.profiles["a"].model == str(place.file.parent / "m")


async def test_ports_that_want_a_key_stay_closed_without_it(place):
    keys = place.file.with_name("keys")
    keys.write_text("s3cret-s3cret-s3cret\n")
    keys.chmod(0o600)
    file = await place.used(f"api_keys_file: {keys}\n{naming('old')}")
    assert "s3cret" not in file.copy.read_text()
    keys.unlink()
    with pytest.raises(ConfigError):
        place.next().begin(unattended=True)


@pytest.mark.parametrize("content", [b"\xff\xfe", BAD.encode(), b""])
async def test_damaged_copy_is_no_help_and_no_harm(place, content):
    (await place.used(naming("old"))).copy.write_bytes(content)
    assert names(place.next().begin(unattended=True)) == ["old"]
    place.file.write_text(BAD)
    with pytest.raises(ConfigError, match="problem"):
        place.next().begin(unattended=True)


# --- keeping


async def test_text_that_is_read_later_is_kept_as_well(place):
    file = await place.used(naming("old"))
    place.file.write_text(naming("new"))
    await file.read()
    await file.keep()
    place.file.write_text(BAD)
    assert names(place.next().begin(unattended=True)) == ["new"]


async def test_text_that_stood_in_is_what_is_kept(place):
    await place.used(naming("old"))
    place.file.write_text(BAD)
    file = place.next()
    file.begin(checked=naming("checked"), unattended=True)
    await file.keep()
    assert names(place.next().begin(unattended=True)) == ["checked"]


async def test_copy_is_private(place):
    file = await place.used(naming("a"))
    assert stat.S_IMODE(file.copy.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.state.stat().st_mode) == 0o700


async def test_copy_is_written_only_when_it_would_change(place):
    file = await place.used(naming("a"))
    before = file.copy.stat().st_ino
    await file.keep()
    assert file.copy.stat().st_ino == before


async def test_copy_that_cannot_be_written_is_not_fatal(place):
    place.state.write_text("in the way")
    await place.used(naming("a"))


async def test_bad_file_leaves_the_copy_as_it_was(place):
    file = await place.used(naming("old"))
    place.file.write_text(BAD)
    with pytest.raises(ConfigError):
        await file.read()
    await file.keep()
    assert names(place.next().begin(unattended=True)) == ["old"]


# --- following


async def test_fault_lasts_until_the_file_is_mended(place):
    file = await place.used(naming("a"))
    place.file.write_text(BAD)
    with pytest.raises(ConfigError):
        await file.read()
    assert "problem" in file.fault
    place.file.write_text(naming("a", "b"))
    assert names(await file.read()) == ["a", "b"]
    assert file.fault is None


async def test_file_that_began_bad_is_unchanged_until_it_is_mended(place):
    await place.used(naming("old"))
    place.file.write_text(BAD)
    file = place.next()
    file.begin(unattended=True)
    assert not file.changed()
    place.file.write_text(naming("mended"))
    assert file.changed()
    await file.read()
    assert not file.changed()


# --- checking


async def test_text_that_was_checked_is_the_text_that_is_handed_on(place):
    file = await place.used(naming("a"))
    writes = iter([naming("b")])

    def check():
        place.file.write_text(next(writes, naming("b")))

    assert await file.text_that_passes(check) == naming("b")


async def test_file_that_never_rests_refuses_the_restart(place):
    file = await place.used(naming("a"))
    checked = []

    def check():
        checked.append(1)
        place.file.write_text(naming("a") + "#" * len(checked))

    with pytest.raises(RestartRefusedError, match="changes all the time"):
        await file.text_that_passes(check)
    assert len(checked) == CHECKS_MAX
