"""A real systemd for tests: the init of namespaces of its own, gone with them, and a user manager.

It sees the machine's file system, read-only. What it writes goes to file systems of its
own on /run, /tmp and /var/tmp, so that nothing it starts can clean up after somebody else. The
network is the machine's: a test reaches the ports directly. Root is needed, and cgroup v2.
"""

import os
import re
import select
import shutil
import socket
import subprocess
import sys
from pathlib import Path

from tests.conftest import ROOT


SYSTEMD = Path("/lib/systemd/systemd")
TOOLS = ("unshare", "nsenter", "setpriv", "timeout", "systemctl")

# Runs as root in the new namespaces; the arguments are directories to share, which may be below
# its /tmp, and the first of which may be written to. Its /tmp comes first.
BOOT = r"""
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
for shared; do mkdir -p "/run/shared$shared"; mount --bind "$shared" "/run/shared$shared"; done
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /var/tmp
for shared; do mkdir -p "$shared"; mount --move "/run/shared$shared" "$shared"; done
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --bind /dev/null /dev/console
mount --bind /proc/sys /proc/sys
mount -o remount,bind,ro /proc/sys
mount -o remount,bind,ro /
mkdir -p /run/systemd/system /run/user/0
chmod 700 /run/user/0
cp "$1"/units/* /run/systemd/system
exec env -i container=docker PATH="$PATH" NOTIFY_SOCKET="$1/boot" \
  setpriv --bounding-set=-sys_boot,-sys_module,-sys_time,-syslog \
  /lib/systemd/systemd --system --unit=test.target --log-target=null --show-status=no
"""

# Without default dependencies nothing else is started: no journal, no udev, no cleaning of files.
TARGET = "[Unit]\nDefaultDependencies=no\n"

# The manager of the user's services, as user@0.service would start it.
USER = """[Unit]
DefaultDependencies=no
[Service]
Type=notify
ExecStart=/lib/systemd/systemd --user --unit=basic.target
Environment=HOME={home} XDG_RUNTIME_DIR={runtime}
Delegate=yes
KillMode=mixed
"""


def missing():
    """Why there can be no real systemd here; None when there can."""
    if os.uname().sysname != "Linux" or os.geteuid() != 0:
        return "namespaces need root on Linux"
    if not SYSTEMD.exists():
        return f"there is no {SYSTEMD}"
    lacking = [tool for tool in TOOLS if not shutil.which(tool)]
    if lacking:
        return f"not installed: {', '.join(lacking)}"
    release = tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])
    if release < (5, 14):
        return "Linux before 5.14 cannot end a control group at once"
    return None if _cgroup2() else "there is no cgroup v2"


def _cgroup2():
    """Where the control group of this process is, in the file system; None without version 2."""
    groups = Path("/proc/self/cgroup").read_text().splitlines()
    group = next((line[3:] for line in groups if line.startswith("0::")), "")
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        if after.startswith("cgroup2 "):
            return Path(before.split()[4]) / group.lstrip("/")
    return None


class RealSystemd:
    """The running systemd; a context manager.

    Args:
        directory: Private, and seen inside under the same path; everything else is read-only.
        limit_s: After so many seconds it is killed, whatever becomes of the test.

    Attributes:
        home: Of the user, root, inside: `directory / "home"`.
        units: Where the user's units are.
        runtime: The user's runtime directory, reachable only inside.
        pid: Of its init, as seen from outside.
    """

    runtime = "/run/user/0"

    def __init__(self, directory, *, limit_s=60):
        self.directory = Path(directory)
        self.home = self.directory / "home"
        self.units = self.home / ".config" / "systemd" / "user"
        self.units.mkdir(parents=True)
        self._group = _cgroup2() / f"llmd-test-{os.getpid()}"
        (self.directory / "units").mkdir()
        for name, text in {"test.target": TARGET, "user.service": USER}.items():
            filled = text.format(home=self.home, runtime=self.runtime)
            (self.directory / "units" / name).write_text(filled)
        self._limit_s = limit_s
        self.pid = None

    def __enter__(self):
        self._group.mkdir()
        enter_group = f'echo $$ > "{self._group}/cgroup.procs"; exec "$@"'
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as boot:
            boot.bind(str(self.directory / "boot"))
            boot.settimeout(20)
            self._process = subprocess.Popen(
                [
                    *("timeout", "-s", "KILL", str(self._limit_s)),
                    *("sh", "-c", enter_group, "sh"),
                    *("unshare", "--pid", "--mount", "--cgroup", "--uts", "--ipc"),
                    *("--fork", "--kill-child", "--mount-proc"),
                    *("sh", "-c", BOOT, "sh", str(self.directory), *_below_tmp(ROOT, sys.prefix)),
                ],
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                while b"READY=1" not in boot.recv(4096).split(b"\n"):
                    pass
                self.pid = _only_child(_only_child(self._process.pid))
                self.run("systemctl", "--system", "start", "user.service")
            except BaseException:
                self._end()
                raise
        return self

    def __exit__(self, *_):
        self._end()

    def run(self, *argv, timeout=30, check=True, env=None):
        """Run a program inside, as the user; its output, both streams."""
        user = {"HOME": str(self.home), "XDG_RUNTIME_DIR": self.runtime}
        ran = subprocess.run(
            ["nsenter", "-t", str(self.pid), "-p", "-m", "-u", "-i", "-C", "--", *map(str, argv)],
            env={"PATH": os.environ["PATH"], **user, **(env or {})},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=timeout, check=False,
        )  # fmt: skip
        assert not check or ran.returncode == 0, (argv, ran.stdout)
        return ran.stdout

    def systemctl(self, *arguments, **options):
        """`systemctl --user`."""
        return self.run("systemctl", "--user", *arguments, **options)

    def show(self, unit, *names):
        """Properties of a unit, by name."""
        text = self.systemctl("show", unit, *(f"-p{name}" for name in names))
        return dict(line.split("=", 1) for line in text.splitlines())

    def log_out(self):
        """End the user's manager, and with it all the user's services."""
        self.run("systemctl", "--system", "stop", "user.service")

    def _end(self):
        (self._group / "cgroup.kill").write_text("1")
        self._process.wait(10)  # `timeout`, whose child is gone
        with (self._group / "cgroup.events").open() as events:
            change = select.poll()
            change.register(events, select.POLLPRI)
            while "populated 1" in events.read():
                change.poll(1000)
                events.seek(0)
        for directory, _, _ in os.walk(self._group, topdown=False):
            Path(directory).rmdir()


def _below_tmp(root, environment):
    """Those of the two directories that the /tmp of the namespace would hide."""
    apart = [root] if Path(environment).is_relative_to(root) else [root, environment]
    return [str(directory) for directory in apart if Path(directory).is_relative_to("/tmp")]


def _only_child(pid):
    [child] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)
