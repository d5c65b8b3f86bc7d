"""The control socket: who may have it, and what must not be in its way."""

import os
import socket
import stat
from pathlib import Path

import pytest

import llmd.admin.socket as control_socket
from llmd.admin.directory import UnsafeSocketError
from llmd.admin.peer import peer_uid
from llmd.admin.socket import ControlSocket
from llmd.errors import AlreadyRunningError


@pytest.fixture
def path(short_dir):
    return short_dir / "s"


def bind(path: Path) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(os.fspath(path))
    return sock


def test_socket_is_private_from_the_first_moment(path):
    control = ControlSocket(path)
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    assert stat.S_IMODE(path.with_name("s.lock").lstat().st_mode) == 0o600
    control.close()
    assert not path.exists()


def test_umask_is_restored(path):
    before = os.umask(0o022)
    try:
        ControlSocket(path).close()
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)


def test_missing_directories_are_made_private(short_dir):
    path = short_dir / "a" / "s"
    ControlSocket(path).close()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_dead_file_is_replaced(path):
    bind(path).close()
    control = ControlSocket(path)
    with socket.socket(socket.AF_UNIX) as dialled:
        dialled.connect(os.fspath(path))
    control.close()


def test_second_daemon_is_refused_and_told_whom_to_stop(path):
    control = ControlSocket(path)
    with pytest.raises(AlreadyRunningError) as caught:
        ControlSocket(path)
    assert f"(pid {os.getpid()})" in caught.value.message
    assert caught.value.remedy == f"stop it with `llmd-ctl --socket {path} stop`"
    with socket.socket(socket.AF_UNIX) as dialled:
        dialled.connect(os.fspath(path))  # the first one still has it
    control.close()


def test_live_rival_without_a_lock_keeps_its_socket(path):
    """A daemon whose lock file was deleted, or another program altogether."""
    with bind(path) as rival:
        rival.listen()
        with pytest.raises(AlreadyRunningError, match=rf"\(pid {os.getpid()}\)"):
            ControlSocket(path)
        assert stat.S_ISSOCK(path.lstat().st_mode)


def test_rival_with_a_full_backlog_counts_as_live(path, monkeypatch):
    monkeypatch.setattr("llmd.admin.socket._DIAL_TIMEOUT_S", 0.05)
    with bind(path) as rival, socket.socket(socket.AF_UNIX) as first:
        rival.listen(0)
        first.connect(os.fspath(path))
        with pytest.raises(AlreadyRunningError):
            ControlSocket(path)
        assert path.exists()


def test_lock_is_free_again_after_a_refusal(path):
    path.write_text("in the way")
    with pytest.raises(UnsafeSocketError):
        ControlSocket(path)
    path.unlink()
    ControlSocket(path).close()


def test_close_leaves_the_socket_of_a_successor_alone(path):
    first = ControlSocket(path)
    path.unlink()
    with bind(path):
        first.close()
        first.close()
        assert path.exists()


def test_path_is_measured_in_bytes_not_characters(short_dir):
    path = short_dir / ("é" * 50)
    assert len(str(path)) < 103 < len(os.fsencode(path))
    with pytest.raises(UnsafeSocketError, match="at most 103 fit"):
        ControlSocket(path)


def loosen(path: Path) -> None:
    path.parent.chmod(0o750)


def link_the_directory(path: Path) -> None:
    real = path.parent.with_name(path.parent.name + "-real")
    path.parent.rename(real)
    path.parent.symlink_to(real)


def link_the_socket(path: Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))


def link_the_lock(path: Path) -> None:
    path.with_name("s.lock").symlink_to(path.with_name("elsewhere"))


def write_a_file(path: Path) -> None:
    path.write_text("precious")


def make_a_directory(path: Path) -> None:
    path.mkdir()


def replace_the_directory(path: Path) -> None:
    path.parent.rmdir()
    path.parent.write_text("")


@pytest.mark.parametrize(
    ("attack", "words"),
    [
        pytest.param(loosen, r"open to others \(mode 0750\)", id="directory open to the group"),
        pytest.param(link_the_directory, "is a symbolic link", id="directory is a link"),
        pytest.param(link_the_socket, "it is a symbolic link", id="socket is a link"),
        pytest.param(link_the_lock, "cannot open the lock file", id="lock is a link"),
        pytest.param(write_a_file, "it is not a socket", id="a file is in the way"),
        pytest.param(make_a_directory, "it is not a socket", id="a directory is in the way"),
        pytest.param(replace_the_directory, "is no directory", id="directory is a file"),
    ],
)
def test_unsafe_place_is_refused_and_left_alone(tmp_path_factory, short_dir, attack, words):
    path = short_dir / "run" / "s"
    path.parent.mkdir(mode=0o700)
    attack(path)
    before = sorted(short_dir.rglob("*"))
    with pytest.raises(UnsafeSocketError, match=words) as caught:
        ControlSocket(path)
    assert caught.value.remedy
    assert [found for found in sorted(short_dir.rglob("*")) if found.name != "s.lock"] == [
        found for found in before if found.name != "s.lock"
    ]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_directory_of_another_user_is_refused(path):
    os.chown(path.parent, 65534, -1)
    with pytest.raises(UnsafeSocketError, match="belongs to user 65534"):
        ControlSocket(path)
    os.chown(path.parent, 0, -1)


def open_the_way(path: Path) -> None:
    path.parent.parent.chmod(0o777)


def share_the_way(path: Path) -> None:
    os.chown(path.parent.parent, -1, 65533)
    path.parent.parent.chmod(0o775)


def give_the_way_away(path: Path) -> None:
    os.chown(path.parent.parent, 65533, -1)


def lead_through_a_strangers_link(path: Path) -> None:
    os.lchown(path.parent.parent, 65533, -1)


@pytest.mark.skipif(os.getuid() != 0, reason="NOT ROOT: only root can give a directory away")
@pytest.mark.parametrize(
    ("attack", "words"),
    [
        pytest.param(open_the_way, r"can be written by others \(mode 0777\)", id="open to all"),
        pytest.param(share_the_way, r"can be written by others \(mode 0775\)", id="a group's"),
        pytest.param(give_the_way_away, "belongs to user 65533", id="another user's"),
        pytest.param(lead_through_a_strangers_link, "belongs to user 65533", id="a link of theirs"),
    ],
)
def test_directory_that_others_can_exchange_is_refused(short_dir, attack, words):
    way = short_dir / "way"
    if attack is lead_through_a_strangers_link:
        (short_dir / "real").mkdir()
        way.symlink_to("real")
    path = way / "run" / "s"
    path.parent.mkdir(mode=0o700, parents=True)
    attack(path)
    with pytest.raises(UnsafeSocketError, match=words) as caught:
        ControlSocket(path)
    assert "choose another with --socket or LLMD_SOCKET" in caught.value.remedy
    assert list(path.parent.iterdir()) == []


def test_directory_below_a_sticky_one_is_fine(short_dir):
    short_dir.chmod(0o1777)
    ControlSocket(short_dir / "run" / "s").close()


def test_directory_that_only_its_own_group_can_exchange_is_fine(short_dir):
    short_dir.chmod(0o770)
    ControlSocket(short_dir / "run" / "s").close()


@pytest.mark.parametrize("swapped", ["directory", "file", "link", "mode"])
def test_swap_while_it_binds_is_noticed(short_dir, monkeypatch, swapped):
    """The race, decided for the attacker: right after the bind, before anybody connects."""
    path = short_dir / "run" / "s"
    real = control_socket._bind

    def bind_and_swap(where):
        sock = real(where)
        if swapped == "directory":
            where.parent.rename(short_dir / "away")
            where.parent.mkdir(mode=0o700)
            bind(where).close()
        elif swapped == "mode":
            where.chmod(0o666)
        else:
            where.rename(where.with_name("away"))
            where.write_text("") if swapped == "file" else where.symlink_to("away")
        return sock

    monkeypatch.setattr(control_socket, "_bind", bind_and_swap)
    with pytest.raises(UnsafeSocketError):
        ControlSocket(path)
    monkeypatch.undo()
    for made in short_dir.rglob("*"):
        if not made.is_dir() and made.name in {"s", "away"}:
            made.unlink()
    ControlSocket(path).close()  # the lock is free again


def test_lock_that_is_a_name_of_a_precious_file_is_left_alone(path):
    precious = path.with_name("precious")
    precious.write_text("precious")
    path.with_name("s.lock").hardlink_to(precious)
    with pytest.raises(UnsafeSocketError, match="has another name, too"):
        ControlSocket(path)
    assert precious.read_text() == "precious"


def test_lock_that_is_a_pipe_is_refused_at_once(path):
    os.mkfifo(path.with_name("s.lock"))
    with pytest.raises(UnsafeSocketError, match="no regular file"):
        ControlSocket(path)


def test_peer_is_known_by_its_user_id():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        assert peer_uid(ours.fileno()) == os.getuid()
