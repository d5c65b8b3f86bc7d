"""The warm spare: a host that has imported its engine before anybody needs it."""

from collections.abc import Callable
from typing import Final

from llmd.core.events import Effect, Note, StartSpare, StopHost
from llmd.core.residents import Residents, Spare
from llmd.core.slot import SlotState


PAUSE_S: Final = 2.0
"""After a load, before a spare is started: the first request has the processor to itself."""
RETRY_S: Final = 60.0
"""After a spare that failed."""

_CHANGING: Final = (
    SlotState.WAITING,
    SlotState.LOADING,
    SlotState.DRAINING,
    SlotState.UNLOADING,
)


class SpareKeeper:
    """Starts the spare when there is room and nothing else to do; ends it when room is short."""

    def __init__(
        self,
        book: Residents,
        emit: Callable[[Effect], None],
        look_again: Callable[[float], None],
    ) -> None:
        self._book = book
        self._emit = emit
        self._look_again = look_again
        self.not_before_s = 0.0
        """Until then none is started."""

    def stop(self, reason: str) -> None:
        """End the warm spare, if there is one."""
        spare = self._book.spare
        if spare is not None and spare.state != "stopping":
            spare.state = "stopping"
            self._emit(StopHost(spare.host, reason))
            self._emit(Note("spare.stopped", {"reason": reason, "freed_bytes": spare.bytes}))

    def mind(self, now: float) -> None:
        """Start a spare when there is room, nothing else to do, and a profile to use it."""
        book, rules = self._book, self._book.rules
        wanted = {slot.wants for slot in book}
        kinds = [r.spare_kind for r in book.profiles.values() if r.name not in wanted]
        kind = next((kind for kind in kinds if kind is not None), None)
        if kind is None or rules.spare_bytes <= 0:
            self.stop("no profile could use it")
            return
        coming = any(slot.queue or slot.state in _CHANGING for slot in book)
        used_bytes = max(book.held_bytes(), book.promised_bytes())
        if book.spare is not None or coming or used_bytes + rules.spare_bytes > rules.budget_bytes:
            return
        if now < self.not_before_s:
            self._look_again(self.not_before_s)
            return
        book.spare = Spare(book.next_host(), kind, rules.spare_bytes)
        self._emit(StartSpare(book.spare.host, kind))
        self._emit(Note("spare.started", {"kind": kind, "bytes": rules.spare_bytes}))
