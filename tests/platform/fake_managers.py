"""Service managers in memory: what `launchctl` and `systemctl` would answer, and a clock."""

from collections import defaultdict

from llmd.platform.run import Ran
from tests.platform.definitions import GOLDEN


RUNNING = (GOLDEN / "print-running.txt").read_text()
WAITING = (GOLDEN / "print-waiting.txt").read_text()

OK = Ran(0, "")
HANGS = Ran(None, "")


def fails(code, output=""):
    return Ran(code, output)


class FakeTime:
    """Passes when somebody waits."""

    def __init__(self):
        self.now_s = 0.0

    def now(self):
        return self.now_s

    def pause(self, seconds):
        self.now_s += seconds


class FakeLaunchctl:
    """Remembers what it was called with, and which domains have the job.

    `answers[verb]` are recorded ones, given first, in order. After them it answers as launchd does
    when all is well: an unloaded job stays for *drains* calls of `print`.
    """

    def __init__(self, *, loaded=(), starts=True, drains=2):
        self.calls = []
        self.timeouts_s = []
        self.answers = defaultdict(list)
        self.loaded = dict.fromkeys(loaded, RUNNING)
        self.starts = starts
        self._drains = drains
        self._draining = {}

    def __call__(self, argv, timeout_s):
        program, verb, *rest = argv
        assert program == "launchctl"
        self.calls.append(" ".join((verb, *rest)))
        self.timeouts_s.append(timeout_s)
        answer = self.answers[verb].pop(0) if self.answers[verb] else None
        if answer is None or answer.ok:
            return (
                getattr(self, f"_{verb}")(*rest) if answer is None or not answer.output else answer
            )
        return answer

    def changes(self):
        """The calls that were no questions."""
        return [call for call in self.calls if not call.startswith("print ")]

    def _print(self, target):
        domain = target.rpartition("/")[0]
        if domain in self._draining:
            self._draining[domain] -= 1
            if self._draining[domain] < 0:
                del self._draining[domain], self.loaded[domain]
        if domain not in self.loaded:
            return Ran(113, f'Could not find service "dev.llmd" in domain {domain}\n')
        return Ran(0, self.loaded[domain])

    def _bootstrap(self, domain, _path):
        if domain in self.loaded:
            return Ran(5, "Bootstrap failed: 5: Input/output error\n")
        self.loaded[domain] = RUNNING if self.starts else WAITING
        return OK

    def _bootout(self, target):
        domain = target.rpartition("/")[0]
        if domain not in self.loaded:
            return Ran(3, "Boot-out failed: 3: No such process\n")
        self._draining[domain] = self._drains
        return OK

    def _kickstart(self, target):
        self.loaded[target.rpartition("/")[0]] = RUNNING
        return OK

    def _enable(self, _target):
        return OK


class FakeSystemctl:
    """Remembers what it was called with, and which units are active.

    `answers[verb]` are given first, in order.
    """

    def __init__(self, *, active=(), failed=(), linger="yes", journal=""):
        self.calls = []
        self.timeouts_s = []
        self.answers = defaultdict(list)
        self.active = set(active)
        self.failed = set(failed)
        self.linger = linger
        self.journal = journal
        self.stop_limit = "1min"
        self.jobs = ""

    def __call__(self, argv, timeout_s):
        if argv[0] == "loginctl":
            return Ran(0, f"{self.linger}\n")
        if argv[0] == "journalctl":
            return Ran(0, self.journal)
        program, user, verb, *rest = argv
        assert (program, user) == ("systemctl", "--user")
        units = [word for word in rest if not word.startswith("-")]
        self.timeouts_s.append(timeout_s)
        self.calls.append(" ".join((verb, *units)))
        if self.answers[verb]:
            return self.answers[verb].pop(0)
        match verb:
            case "show":
                return Ran(0, self._shown(units[0]))
            case "start" | "restart":
                self.active |= set(units)
                self.failed -= set(units)
            case "stop":
                self.active -= set(units)
            case "list-jobs":
                return Ran(0, self.jobs)
        return OK

    def changes(self):
        """The calls that were no questions."""
        return [call for call in self.calls if not call.startswith("show ")]

    def _shown(self, unit):
        state = "active" if unit in self.active else "failed" if unit in self.failed else "inactive"
        pid = 4711 if state == "active" and unit.endswith(".service") else 0
        return (
            f"LoadState=loaded\nActiveState={state}\nMainPID={pid}\nTimeoutStopUSec="
            f"{self.stop_limit}\nResult={'exit-code' if state == 'failed' else 'success'}\n"
            f"ExecMainStatus={78 if state == 'failed' else 0}\n"
        )
