"""What a daemon and its hosts hold, read now and then."""

import statistics
from collections import defaultdict
from dataclasses import dataclass, field

import psutil


FIELDS = ("rss_mib", "descriptors", "threads", "tasks")


def weigh(pid):
    """Memory, descriptors and threads of a process; None when it is gone."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            return {
                "rss_mib": process.memory_info().rss / 2**20,
                "descriptors": process.num_fds(),
                "threads": process.num_threads(),
            }
    except psutil.Error:
        return None


@dataclass
class Minute:
    """What was seen in one interval.

    Attributes:
        holdings: Of the daemon and each host, by name and field, one reading after the other.
        latencies_s: Of requests that were answered, from the connection to the last byte.
        paces: The share of a processor that was to be had.
        pids: Of each host: several when it was replaced.
    """

    holdings: dict = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    latencies_s: list[float] = field(default_factory=list)
    paces: list[float] = field(default_factory=list)
    pids: dict = field(default_factory=lambda: defaultdict(set))

    def read(self, status):
        """Add one reading of the daemon whose *status* this is, and of its hosts."""
        self._add("daemon", status["pid"], tasks=status["tasks"])
        for profile in status["profiles"]:
            if profile["state"] == "ready":
                self._add(profile["name"], profile["host_pid"])

    def _add(self, name, pid, **more):
        self.pids[name].add(pid)
        for key, value in ({**held, **more} if (held := weigh(pid)) else {}).items():
            self.holdings[name][key].append(value)

    def level(self, name, key):
        """The middle reading; None when there was none."""
        readings = self.holdings[name][key]
        return statistics.median(readings) if readings else None

    def latency_s(self, percent):
        """The latency that *percent* of the answers did not pass; None without answers."""
        ordered = sorted(self.latencies_s)
        if not ordered:
            return None
        return ordered[min(len(ordered) * percent // 100, len(ordered) - 1)]

    @property
    def pace(self):
        """The middle of the shares of a processor that were to be had."""
        return statistics.median(self.paces) if self.paces else 1.0
