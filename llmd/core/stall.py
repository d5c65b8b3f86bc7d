"""Whether a host hangs: arithmetic on what was seen of it, look by look.

A host is given time while anything of it moves: a token, a piece of a prompt, processor time. What
counts as movement is the runtime's business; here is how long its absence is borne.
"""

from typing import Final

from msgspec import Struct


LOOK_MAX_S: Final = 5.0
"""A look vouches for so many seconds at most: while the daemon itself was stopped, starved or
asleep, nobody looked, and the host may have worked or been stopped with it."""

WORKS_FROM: Final = 0.005
"""The share of one processor from which a host counts as working. A Python server that waits takes
0.1 to 0.3 %, by its timers; one that computes on the processor takes all of it."""

FRUITLESS_TIMES: Final = 5
"""Where progress would show, processor time without any excuses a host so many times longer: then
it turns in circles. Five times the default are ten minutes for one piece of a prompt."""


class Signs(Struct, frozen=True):
    """What one look at a host found.

    Attributes:
        working: A request is with it, and nobody but the engine keeps it waiting.
        owing: It was asked on its control socket and has not answered yet.
        progress: Another value whenever a token or a piece of a prompt was done.
        telling: Progress would show. A server that says nothing before its answer is done may
            compute for as long as that takes.
        cpu_s: Processor time that its processes have used so far.
    """

    working: bool
    owing: bool
    progress: str
    telling: bool
    cpu_s: float


class Stall(Struct, frozen=True):
    """A host that hangs, and what proves it.

    Attributes:
        silent_s: Seconds in which nothing moved; awake ones, that were looked at.
        spinning: It used the processor all the while, without any progress.
        owing: Its control socket is silent, too.
        working: It had work.
    """

    silent_s: float
    spinning: bool
    owing: bool
    working: bool

    @property
    def words(self) -> str:
        """What happened, for people."""
        if self.spinning:
            return f"it turned in circles: busy for {self.silent_s:.0f} s without a token"
        if not self.working:
            return f"it stopped answering: silent on its control socket for {self.silent_s:.0f} s"
        also = ", silent on its control socket, too" if self.owing else ""
        return f"it stopped answering: no token and no work for {self.silent_s:.0f} s{also}"


class Patience:
    """How long one host has shown nothing; one `look` after the other."""

    def __init__(self) -> None:
        self._last: Signs | None = None
        self._looked_s = 0.0
        self._silent_s = 0.0
        """Neither progress nor processor time."""
        self._fruitless_s = 0.0
        """No progress, whatever the processor did."""
        self._resting_s = 0.0

    @property
    def doubtful(self) -> bool:
        """Whether the last look found nothing that moved, where something should."""
        return self._fruitless_s > 0

    def look(self, signs: Signs, now: float, *, timeout_s: float) -> Stall | None:
        """Take *signs* into account; the verdict, once nothing moved for *timeout_s*.

        Between two requests the time stands still rather than beginning anew: clients that give up
        and ask again must not save a host that hangs. A rest of *timeout_s* does forgive.

        Args:
            signs: What was seen now.
            now: Seconds on a clock that stops while the machine sleeps.
            timeout_s: The profile's `stall_timeout`.
        """
        last, self._last = self._last, signs
        took_s, self._looked_s = now - self._looked_s, now
        if last is None or signs.progress != last.progress or _answered_at_rest(last, signs):
            self._forgive()
            return None
        step_s = min(max(took_s, 0.0), LOOK_MAX_S)
        if not (signs.working or signs.owing):
            self._resting_s += step_s
            if self._resting_s >= timeout_s:
                self._forgive()
            return None
        self._resting_s = 0.0
        self._fruitless_s += step_s
        used = (signs.cpu_s - last.cpu_s) / took_s if took_s > 0 else 0.0
        self._silent_s = 0.0 if used >= WORKS_FROM else self._silent_s + step_s
        if self._silent_s >= timeout_s:
            return Stall(self._silent_s, spinning=False, owing=signs.owing, working=signs.working)
        if signs.telling and self._fruitless_s >= FRUITLESS_TIMES * timeout_s:
            return Stall(self._fruitless_s, spinning=True, owing=signs.owing, working=signs.working)
        return None

    def _forgive(self) -> None:
        self._silent_s = self._fruitless_s = self._resting_s = 0.0


def _answered_at_rest(last: Signs, signs: Signs) -> bool:
    """Whether an answer came that had been owed, and nothing more is expected."""
    return last.owing and not signs.owing and not signs.working
