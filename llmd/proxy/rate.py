"""How fast an engine streams, as its events show."""

from collections.abc import Callable
from typing import Final

from msgspec import Struct


_RATED_EVENTS: Final = 16
"""A stream of fewer events says little about speed."""
_CLOSING_EVENTS: Final = 3
"""The end of a stream: a finish reason, the usage, `[DONE]`."""


class Rate(Struct):
    """Of one stream: when its first and its last piece came, in seconds of one clock."""

    first_s: float = 0.0
    last_s: float = 0.0

    def piece(self, now: float) -> None:
        """A piece has come."""
        self.last_s = now
        self.first_s = self.first_s or now

    def tell(self, profile: str, events: int, on_rate: Callable[[str, float], None]) -> None:
        """Tell *on_rate* tokens per second: events, less the last ones that carry none."""
        seconds = self.last_s - self.first_s
        if events >= _RATED_EVENTS and seconds > 0:
            on_rate(profile, (events - _CLOSING_EVENTS) / seconds)
