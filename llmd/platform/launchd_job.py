"""The LaunchAgent in force: installed, removed, started and stopped through `launchctl`.

`launchctl bootout` returns before the job is gone, and a `bootstrap` meanwhile fails with errors
that mean nothing else. So every step here is waited for, and repeated where that helps; the same
facts rule out `load` and `unload`, whose exit status is 0 whatever happened.
"""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from llmd.platform import launchd
from llmd.platform.definition import (
    Definition,
    Runner,
    ServiceError,
    ServiceState,
    first_line,
    make_directories,
    read_if_there,
    remove,
    run_program,
    write_atomically,
)
from llmd.platform.launchd import LABEL, SERVICE_LOG
from llmd.platform.launchd_answers import (
    GONE,
    MEANINGS,
    PASSING,
    REMEDIES,
    JobState,
    explain,
    parse_print,
)
from llmd.platform.run import Ran


CALL_S: Final = 15.0
POLL_S: Final = 0.2
BOOTSTRAP_TRIES: Final = 10
BOOTSTRAP_PAUSE_S: Final = 0.7
PID_WITHIN_S: Final = 2.0
GONE_MARGIN_S: Final = 10.0
"""A job may take its exit timeout to go, and launchd so long to notice."""

_EXIT_TIMEOUT_S: Final = 60.0


class LaunchAgent:
    """llmd as one user's LaunchAgent.

    Attributes:
        path: The property list.
        domain: Where `install` registers it: the user's login at the screen, or else the user.
    """

    kind: Final = "launchd"

    def __init__(
        self,
        home: Path,
        *,
        domain: str,
        runner: Runner = run_program,
        pause: Callable[[float], None] = time.sleep,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.path = launchd.plist_path(home)
        self.domain = domain
        self._run = runner
        self._pause = pause
        self._now = now
        uid = domain.rpartition("/")[2]
        self._domains = (f"gui/{uid}", f"user/{uid}")

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that make the service."""
        return (self.path,)

    def installed(self) -> Definition | None:
        """What the property list says; None when there is none, or it is not ours."""
        text = read_if_there(self.path)
        return None if text is None else launchd.read_back(text)

    def is_current(self, definition: Definition) -> bool:
        """Whether the property list is what `install` would write for *definition*."""
        text = read_if_there(self.path) or ""
        background = launchd.loads_in_background(text)
        return text == launchd.render(definition, background=background)

    def log_lines(self, count: int) -> list[str]:
        """The last *count* lines that the daemon printed."""
        installed = self.installed()
        text = installed and read_if_there(installed.log_dir / SERVICE_LOG)
        return text.splitlines()[-count:] if text else []

    def state(self) -> ServiceState:
        """What launchd says, of whichever domain has a process.

        Raises:
            ServiceError: launchctl fails, or does not answer.
        """
        jobs = {domain: job for domain in self._domains if (job := self._job(domain)) is not None}
        job = next((job for job in jobs.values() if job.pid), next(iter(jobs.values()), JobState()))
        limit_s = job.exit_timeout_s
        return ServiceState(
            places=tuple(jobs),
            pid=job.pid,
            failure=_why_down(job) if jobs and job.pid is None else "",
            stop_limit_s=None if limit_s is None else float(limit_s),
            scheduling=job.spawn_type,
        )

    def install(self, definition: Definition) -> list[str]:
        """Write the property list and bring it into force; returns what was done, for people.

        Idempotent: what is right already is left running.

        Raises:
            ServiceError: With the reason, and what to do.
        """
        text = launchd.render(definition, background=self.domain.startswith("user/"))
        make_directories(definition)
        did = []
        changed = read_if_there(self.path) != text or self.path.is_symlink()
        if changed:
            write_atomically(self.path, text)
            did.append(f"wrote {self.path}")
        # Disabled is remembered outside the file, and for good; nothing loads while it is set.
        self._must("enable", self._target(self.domain))
        for domain in self._domains:
            stale = changed or domain != self.domain
            if stale and self._unload(domain):
                did.append(f"unloaded the former {LABEL} of {domain}")
        return did + self._bring_up()

    def uninstall(self) -> list[str]:
        """Stop it, in both domains, and remove the property list; returns what was done."""
        did = self.stop()
        if remove(self.path):
            did.append(f"removed {self.path}")
        return did

    def start(self) -> list[str]:
        """Load it if it is not loaded, and see to it that it runs; returns what was done."""
        text = read_if_there(self.path) or ""
        if self.domain.startswith("user/") and not launchd.loads_in_background(text):
            raise ServiceError(
                "the service was installed for a login at the screen, and there is none here",
                remedy="llmd-ctl install",
            )
        self._must("enable", self._target(self.domain))
        return self._bring_up()

    def stop(self) -> list[str]:
        """Unload it until the next login, or `start`; returns what was done.

        A mere SIGTERM would not do: launchd keeps the ports and starts it with the next connection.
        """
        return [f"unloaded {LABEL} of {domain}" for domain in self._domains if self._unload(domain)]

    def advice(self) -> list[tuple[str, str]]:
        """What a user may want to know of where it runs, each with a command."""
        if self.domain.startswith("gui/"):
            return []
        what = "it was loaded without a login at the screen, and is not loaded again after a reboot"
        return [(what, "llmd-ctl start")]

    # --- launchctl -------------------------------------------------------------------------------

    def _bring_up(self) -> list[str]:
        """Load the job where it is not, and wait for its process."""
        did = []
        domain = next((d for d in self._domains if self._job(d) is not None), None)
        if domain is None:
            domain = self.domain
            self._bootstrap(domain)
            did.append(f"loaded {LABEL} in {domain}")
        pid = self._await_pid(domain)
        if pid is None:
            # After a quick unload and load RunAtLoad may not fire. -k would kill what just starts.
            self._must("kickstart", self._target(domain))
            pid = self._await_pid(domain)
            did.append(f"started {LABEL}")
        elif not did:
            did.append(f"{LABEL} is loaded in {domain} and runs (pid {pid})")
        return did

    def _bootstrap(self, domain: str) -> None:
        for attempt in range(BOOTSTRAP_TRIES):
            if attempt:
                self._pause(BOOTSTRAP_PAUSE_S)
            ran = self._launchctl("bootstrap", domain, str(self.path))
            # Its status is doubtful both ways; whether the job is there is not.
            if self._job(domain) is not None:
                return
            if ran.code not in PASSING and not ran.ok:
                break
        raise self._failure("bootstrap", ran)

    def _unload(self, domain: str) -> bool:
        """Unload the job of *domain* and wait until it is gone; False when there was none."""
        job = self._job(domain)
        if job is None:
            return False
        if os.getpid() == job.pid or os.getppid() == job.pid:
            raise ServiceError(
                "the service cannot unload itself", remedy="run this from a terminal"
            )
        limit_s = GONE_MARGIN_S + (job.exit_timeout_s or _EXIT_TIMEOUT_S)
        ran = self._launchctl("bootout", self._target(domain), timeout_s=limit_s)
        if not ran.ok and ran.code not in GONE | PASSING:
            raise self._failure("bootout", ran)
        deadline = self._now() + limit_s
        while self._job(domain) is not None:
            if self._now() >= deadline:
                raise ServiceError(
                    f"{LABEL} has not ended {limit_s:.0f} s after it was unloaded",
                    remedy=f"see `launchctl print {self._target(domain)}`, then try again",
                )
            self._pause(POLL_S)
        return True

    def _await_pid(self, domain: str) -> int | None:
        deadline = self._now() + PID_WITHIN_S
        while True:
            job = self._job(domain)
            if job is not None and job.pid is not None:
                return job.pid
            if self._now() >= deadline:
                return None
            self._pause(POLL_S)

    def _job(self, domain: str) -> JobState | None:
        """The job as *domain* has it; None when it has not."""
        ran = self._launchctl("print", self._target(domain))
        if ran.ok:
            return parse_print(ran.output)
        # Without a login at the screen there is no gui domain, which newer systems call 125.
        if ran.code in GONE or ran.code == 125:
            return None
        raise self._failure("print", ran)

    def _target(self, domain: str) -> str:
        return f"{domain}/{LABEL}"

    def _must(self, *arguments: str) -> None:
        ran = self._launchctl(*arguments)
        if not ran.ok:
            raise self._failure(arguments[0], ran)

    def _launchctl(self, *arguments: str, timeout_s: float = CALL_S) -> Ran:
        return self._run(("launchctl", *arguments), timeout_s)

    def _failure(self, verb: str, ran: Ran) -> ServiceError:
        said = first_line(ran.output)
        return ServiceError(
            f"launchctl {verb} failed with {explain(ran.code)}{f' ({said})' if said else ''}",
            remedy=REMEDIES.get(
                ran.code or 0,
                f"see `plutil -lint {self.path}` and `llmd-ctl doctor`, then try again",
            ),
        )


def _why_down(job: JobState) -> str:
    """Why the loaded *job* has no process."""
    if job.last_exit is None:
        return f"launchd has not started it: {job.state or 'no state'}"
    # 78 before anything ran is launchd's own.
    why = explain(job.last_exit) if job.last_exit in MEANINGS else f"status {job.last_exit}"
    return f"it ended with {why}"


def choose_domain(
    environ: Mapping[str, str], *, uid: int, euid: int, console_uid: int | None
) -> str:
    """The domain to register in, by Homebrew's rule.

    Args:
        environ: Tells whether this is an SSH session.
        uid: Who runs this.
        euid: As whom.
        console_uid: Who is logged in at the screen (the owner of /dev/console).

    Raises:
        ServiceError: It is run as root, whose agents would serve nobody.
    """
    if euid == 0:
        raise ServiceError(
            "the service belongs to one user, and this is root",
            remedy="run it as yourself, without sudo",
        )
    remote = "SSH_CONNECTION" in environ or "SSH_TTY" in environ
    if (remote and console_uid != euid) or uid != euid or "SUDO_USER" in environ:
        return f"user/{euid}"
    return f"gui/{uid}"
