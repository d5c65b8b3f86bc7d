"""Finds hosts that hang, and has them replaced; `llmd.core.stall` decides which do.

| host | sign of work |
|---|---|
| mlx | pieces of prompts, tokens, the bytes that MLX holds |
| llama, or llama-server in an exec host | tokens and pieces of prompts, by `/slots` |
| any other server | what it sends |

Processor time excuses every host for a while. Besides, each must answer on its control socket: a
busy one is asked every ten seconds, an idle one every thirty, in a round that is due anyway. Loads
have a limit of their own, `load_timeout`; remote profiles have no process to replace.
"""

from collections.abc import Callable, Coroutine, Iterable
from math import inf
from typing import Any, Final, Protocol

import psutil
from msgspec import Struct, field
from msgspec.structs import replace

from llmd.core.events import Event, HostStalled
from llmd.core.history import describe
from llmd.core.stall import Patience, Signs, Stall
from llmd.errors import EngineDiedError, LlmdError
from llmd.proxy.at_work import AtWork
from llmd.proxy.gate import Upstream
from llmd.runtime import clock
from llmd.runtime.host_process import HostProcess
from llmd.runtime.hosting import Host
from llmd.runtime.memory import process_tree


ASK_BUSY_S: Final = 10.0
ASK_IDLE_S: Final = 30.0
_ASKS_BUSY: Final = 6
_ASKS_IDLE: Final = 2
"""Times that a host is asked within its `stall_timeout`, at least."""


class Requests(Protocol):
    """What the watchdog asks of the open ports."""

    def at_work(self) -> list[AtWork]:
        """The requests that are with an engine now."""

    def end_at(self, upstream: Upstream, error: LlmdError) -> None:
        """End those that are with the engine at *upstream*."""


class _Watched(Struct):
    """One host, as it was last seen.

    Attributes:
        told: Its last answer; empty while it has given none, or its engine does not count.
        owing: Whether an answer is due.
        heard_s: When it last sent something to a client.
    """

    patience: Patience = field(default_factory=Patience)
    told: dict[str, Any] = field(default_factory=dict)
    owing: bool = False
    asked_s: float = -inf
    heard_s: float = 0.0


class Watchdog:
    """Looks at all hosts that serve; one `look` after the other."""

    def __init__(
        self,
        hosting: Iterable[Host],
        requests: Requests,
        answers: Callable[[Upstream], int],
        *,
        post: Callable[[Event], None],
        spawn_task: Callable[[Coroutine[Any, Any, None]], object],
        cpu_s: Callable[[int], float] | None = None,
        now: Callable[[], float] = clock.awake_s,
    ) -> None:
        """Prepare; nothing is asked before the first `look`.

        Args:
            hosting: The hosts that live.
            requests: Those of all ports.
            answers: How many have come from an upstream.
            post: Takes the verdicts.
            spawn_task: Runs a question until it is answered, or the host is gone.
            cpu_s: Processor time of a process and what it started.
            now: A clock that stands still while the machine sleeps.
        """
        self._hosting = hosting
        self._requests = requests
        self._answers = answers
        self._post = post
        self._spawn_task = spawn_task
        self._cpu_s = tree_cpu_s if cpu_s is None else cpu_s
        self._now = now
        self._watched: dict[int, _Watched] = {}

    def look(self, timeout_s_of: Callable[[str], float]) -> None:
        """Look at each host once; those that hang are ended, and their requests with them.

        *timeout_s_of* tells the `stall_timeout` of a profile, or of the spare, by name.
        """
        now = self._now()
        at_work = self._requests.at_work()
        watched: dict[int, _Watched] = {}
        for host in self._hosting:
            timeout_s = timeout_s_of(host.name)
            if host.process is None or not _serves(host, host.process) or timeout_s == inf:
                continue
            seen = watched[host.number] = self._watched.get(host.number) or _Watched()
            requests = [each for each in at_work if each.upstream is host.upstream]
            signs = self._signs(host, host.process, seen, requests)
            stall = seen.patience.look(signs, now, timeout_s=timeout_s)
            if stall is not None:
                self._give_up(host, host.process, stall, timeout_s)
                continue
            pause_s = min(ASK_IDLE_S, timeout_s / _ASKS_IDLE)
            if signs.working or requests or seen.patience.doubtful:
                pause_s = min(ASK_BUSY_S, timeout_s / _ASKS_BUSY)
            if not seen.owing and now - seen.asked_s >= pause_s:
                seen.owing, seen.asked_s = True, now
                self._spawn_task(_ask(host.process, seen))
        self._watched = watched

    def _signs(
        self, host: Host, process: HostProcess, seen: _Watched, requests: list[AtWork]
    ) -> Signs:
        """What is to be seen of a host now."""
        seen.heard_s = max([seen.heard_s, *(request.heard_s for request in requests)])
        if seen.told.get("resting") is False:  # perhaps for a client that is gone
            working, telling, progress = True, True, str(seen.told["progress"])
        else:  # nobody counts, or it has not been asked since the request came
            working = bool(requests) and not any(request.held_up for request in requests)
            telling = all(request.heard_s for request in requests)
            answers = self._answers(host.upstream) if host.upstream is not None else 0
            progress = f"{seen.told.get('progress')} {seen.heard_s} {answers}"
        in_doubt = working or seen.owing or seen.patience.doubtful
        cpu_s = self._cpu_s(process.pid) if in_doubt else 0.0
        return Signs(working, seen.owing, progress, telling, cpu_s)

    def _give_up(self, host: Host, process: HostProcess, stall: Stall, timeout_s: float) -> None:
        words = f"{stall.words} (`stall_timeout` is {timeout_s:g} s)"
        failure = replace(process.failure(words), hangs=True)
        self._post(HostStalled(host.number, failure, stall.silent_s))
        if host.upstream is not None:
            error = EngineDiedError(
                f"the engine of {host.name} is replaced: {describe(failure)}",
                remedy="send the request again; if it is only slow, raise `stall_timeout`",
            )
            self._requests.end_at(host.upstream, error)


def tree_cpu_s(pid: int) -> float:
    """Processor seconds that *pid* and everything it started have used; what is gone counts not."""
    total_s = 0.0
    for each in process_tree(pid):
        try:
            times = psutil.Process(each).cpu_times()
        except (psutil.Error, OSError):
            continue
        total_s += times.user + times.system
    return total_s


async def _ask(process: HostProcess, seen: _Watched) -> None:
    """Have *process* say how far it is."""
    seen.told = await process.pulse()
    seen.owing = False


def _serves(host: Host, process: HostProcess) -> bool:
    """Whether it is up, and nobody ends it: what still loads may answer nothing."""
    return (
        process.state in ("ready", "prepared")
        and host.settled.is_set()
        and host.stopping is None
        and not process.exited.done()
    )
