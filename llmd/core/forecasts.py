"""Who will be used again how soon: three forecasts, and which of them to believe.

No way of counting past use is right for everybody. Whoever goes from one task to the next comes
back to what was used minutes ago; whoever asks for everything at random is best served by what was
used most all day; at times nothing is better than the order of last use. So each forecast is on
*trial*: the book remembers who would be resident now had it chosen all victims, and charges it the
seconds of each load that would have been. The one that was charged least lately is believed.
"""

from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct, field

from llmd.core.events import Effect, Note
from llmd.core.planner import Candidate, cheapest_set
from llmd.core.residents import Residents


FORECASTS: Final = {"minutes": (0, 1, 2), "hours": (3,), "last use": ()}
"""Indices into `history.TIME_CONSTANTS_S`. The first is believed until another did better."""
HALF_LIFE_S: Final = 3 * 3600.0
"""How fast charges are forgotten; anything from one hour to for ever does about as well."""


class Trial(Struct):
    """What would be, had one forecast chosen all victims.

    Attributes:
        charged_s: Seconds of its loads, decayed.
    """

    forecast: str
    residents: set[str] = field(default_factory=set)
    charged_s: float = 0.0


class Forecasts:
    """Reads the book; writes histories and trials."""

    def __init__(self, book: Residents, emit: Callable[[Effect], None]) -> None:
        self._book = book
        self._emit = emit
        self._trials = [Trial(name) for name in FORECASTS]
        self._in_all: set[str] = set()
        """Resident in every trial: a use of them changes no trial. This is asked each request."""
        self._charged_at_s = 0.0
        self.believed = self._trials[0].forecast

    def cost_s(self, profile: str, now: float) -> float:
        """Seconds that users are expected to wait for *profile* in each hour that it is gone."""
        return self._cost_s(profile, self.believed, now)

    def explain(self, profile: str, now: float) -> dict[str, Any]:
        """Why *profile* was chosen, for the log: the rule, and the numbers it compared."""
        if self._book.rules.eviction == "lru" or not FORECASTS[self.believed]:
            return {"forecast": "last use"}
        cost_s, load_s = self.cost_s(profile, now), self._book.histories[profile].load_s
        return {
            "forecast": self.believed,
            "uses_per_h": round(cost_s / load_s, 2) if load_s else 0.0,
            "load_s": round(load_s, 1),
            "cost_s": round(cost_s, 2),
        }

    def _cost_s(self, profile: str, forecast: str, now: float) -> float:
        history = self._book.histories[profile]
        return 3600.0 * history.rate(FORECASTS[forecast], now) * history.load_s

    def used(self, profile: str, now: float) -> None:
        """A request for *profile* was granted: in each trial it has to be resident."""
        stayed = self._stayed(profile, now)
        history = self._book.histories[profile]
        history.used(now)
        if (stayed and profile in self._in_all) or self._book.rules.eviction == "lru":
            return
        missed = [t for t in self._trials if not stayed or profile not in t.residents]
        for trial in self._trials:
            trial.charged_s *= 0.5 ** ((now - self._charged_at_s) / HALF_LIFE_S)
        self._charged_at_s = now
        for trial in missed:
            trial.charged_s += history.load_s
            self._admit(trial, profile, now)
        self._in_all = set[str].intersection(*(trial.residents for trial in self._trials))
        self._believe(min(self._trials, key=lambda trial: trial.charged_s))

    def _stayed(self, profile: str, now: float) -> bool:
        """Has it been used too recently to be unloaded as idle?"""
        unused_s = now - self._book.histories[profile].used_s
        return unused_s <= self._book.profiles[profile].idle_ttl_s or self._book.pinned(profile)

    def _admit(self, trial: Trial, profile: str, now: float) -> None:
        """Make *profile* resident in *trial*, as the planner would if nobody were busy."""
        profiles, histories = self._book.profiles, self._book.histories
        port = profiles[profile].port
        others = [
            r for r in profiles.values()
            if r.name in trial.residents and r.port != port and self._stayed(r.name, now)
        ]  # fmt: skip
        held_bytes = profiles[profile].footprint_bytes + sum(r.footprint_bytes for r in others)
        candidates = [
            Candidate(
                r.port,
                r.footprint_bytes,
                self._cost_s(r.name, trial.forecast, now),
                histories[r.name].used_s,
            )
            for r in others
            if not self._book.pinned(r.name)
        ]
        leaving = cheapest_set(held_bytes - self._book.rules.budget_bytes, candidates)
        if leaving is None:
            leaving = tuple(c.key for c in candidates)
        trial.residents = {profile, *(r.name for r in others if r.port not in leaving)}

    def _believe(self, best: Trial) -> None:
        [before] = [trial for trial in self._trials if trial.forecast == self.believed]
        if best.charged_s >= before.charged_s:
            return
        self.believed = best.forecast
        fields = {
            "by": best.forecast,
            "reason": "lately it would have caused the fewest seconds of loading",
            "loading_s": {t.forecast: round(t.charged_s, 1) for t in self._trials},
        }
        self._emit(Note("forecast.changed", fields))
