"""A small world for the scheduler: hosts that start, end and fail on demand, and a clock.

It carries out effects the way the daemon does, keeps its own books, and checks after every event
what must always hold.
"""

from llmd.core import events as e
from llmd.core import facts
from llmd.core.scheduler import Scheduler
from llmd.core.slot import SlotState


HUNG = facts.Failure("it hung")


def profile(name, port, gib=1, **more):
    return facts.Residency(name=name, port=port, footprint_bytes=gib, fingerprint=name, **more)


class World:
    """A scheduler with everything around it that it asks for."""

    def __init__(self, profiles, budget, **rules):
        self.now = 0.0
        self.scheduler = Scheduler()
        self.budget = budget
        self.profiles = {p.name: p for p in profiles}
        self.running: dict[int, str] = {}  # live hosts
        self.stopping: set[int] = set()
        self.stalled: set[int] = set()
        self.spares: set[int] = set()
        self.granted: dict[int, tuple[str, int]] = {}
        self.refused: dict[int, object] = {}
        self.completed: dict[int, e.Complete] = {}
        self.open: set[int] = set()  # tickets without an answer
        self.notes: list[e.Note] = []
        self.trimmed: list[int] = []
        self.wake = float("inf")
        self.tickets = 0
        self.grown = False
        self.left: dict[str, str] = {}  # hosts without a daemon
        self.send(e.ConfigReplaced(facts.Rules(budget_bytes=budget, **rules), tuple(profiles)))

    # --- sending

    def send(self, event):
        effects = self.scheduler.handle(event, now=self.now)
        for effect in effects:
            self.carry_out(effect)
        self.check()
        return effects

    def ask(self, port, model=None):
        self.tickets += 1
        self.open.add(self.tickets)
        self.send(e.RequestArrived(self.tickets, port, model))
        return self.tickets

    def load(self, name, **more):
        self.tickets += 1
        self.open.add(self.tickets)
        self.send(e.LoadRequested(self.tickets, name, **more))
        return self.tickets

    def unload(self, name):
        self.tickets += 1
        self.open.add(self.tickets)
        self.send(e.UnloadRequested(self.tickets, name))
        return self.tickets

    def finish(self, ticket, *, served=True):
        self.open.discard(ticket)
        self.granted.pop(ticket, None)
        self.send(e.RequestFinished(ticket, served=served))

    def crash(self, profiles=None):
        """The daemon is killed; the next one finds what it left. Clients are cut off."""
        stock = self.scheduler.stock()
        known = {host.key for host in stock.hosts}
        self.left = {str(h): name for h, name in self.running.items() if str(h) in known}
        self.running, self.stopping, self.spares = {}, set(), set()
        self.granted, self.open, self.wake = {}, set(), float("inf")
        rules = self.scheduler._book.rules
        if profiles is not None:
            self.profiles = {p.name: p for p in profiles}
        self.scheduler = Scheduler()
        self.send(e.ConfigReplaced(rules, tuple(self.profiles.values()), stock))
        assert not self.left, "everything that is left is taken over"

    def ready(self, name):
        self.send(e.HostReady(self.host(name)))

    def gone(self, name_or_host, failure=None):
        host = name_or_host if isinstance(name_or_host, int) else self.host(name_or_host)
        del self.running[host]
        self.stopping.discard(host)
        self.spares.discard(host)
        self.send(e.HostExited(host, failure))
        for ticket in [t for t, (_, h) in self.granted.items() if h == host]:
            self.finish(ticket, served=False)

    def stall(self, host, failure=HUNG, silent_s=120.0):
        """*host* hangs; the daemon ends the requests that are with it."""
        self.stalled.add(host)
        effects = self.send(e.HostStalled(host, failure, silent_s))
        for ticket in [t for t, (_, h) in self.granted.items() if h == host]:
            self.finish(ticket, served=False)
        return effects

    def up(self, name):
        """Bring the hosts that stop to their end, then *name* to readiness."""
        while self.stopping:
            self.gone(next(iter(self.stopping)))
        self.ready(name)

    def sleep(self, seconds):
        """Let time pass, waking when asked to."""
        end = self.now + seconds
        while self.wake <= end:
            self.now, self.wake = max(self.now, self.wake), float("inf")
            self.send(e.Ticked())
        self.now = end

    # --- carrying out

    def carry_out(self, effect):
        match effect:
            case e.StartHost(host=host, profile=name, into_spare=into):
                if into:
                    assert host in self.spares
                    self.spares.discard(host)
                else:
                    assert host not in self.running, "a host number is used once"
                self.running[host] = name
            case e.StartSpare(host=host):
                assert host not in self.running
                self.running[host] = facts.SPARE
                self.spares.add(host)
            case e.AdoptHost(host=host, key=key, profile=name):
                assert self.left.pop(key) == (name or facts.SPARE), "what is left is adopted once"
                self.running[host] = name or facts.SPARE
                if name is None:
                    self.spares.add(host)
            case e.StopHost(host=host):
                assert host in self.running, "only a live host is stopped"
                assert host not in self.stopping, "and only once"
                self.stopping.add(host)
            case e.Grant(ticket=ticket, profile=name, host=host):
                self.settle(ticket)
                assert self.running.get(host) == name, "a grant names the live host of its profile"
                assert host not in self.stopping, "and not one that is leaving"
                self.granted[ticket] = (name, host)
                self.open.add(ticket)  # until it is finished
            case e.Refuse(ticket=ticket, error=error):
                self.settle(ticket)
                self.refused[ticket] = error
            case e.Complete(ticket=ticket):
                self.settle(ticket)
                self.completed[ticket] = effect
            case e.WakeAt(when_s=when):
                self.wake = min(self.wake, when)
            case e.Note():
                self.notes.append(effect)
            case e.TrimCaches(host=host):
                self.trimmed.append(host)

    def settle(self, ticket):
        assert ticket in self.open, f"ticket {ticket} was settled twice, or never asked"
        assert ticket not in self.granted, f"ticket {ticket} was granted already"
        self.open.discard(ticket)

    # --- looking

    def host(self, name):
        return next(h for h, n in self.running.items() if n == name and h not in self.stopping)

    def state(self, name):
        return next(p.state for p in self.view().profiles if p.name == name)

    def view(self):
        return self.scheduler.snapshot(self.now)

    def noted(self, name):
        return [note.fields for note in self.notes if note.name == name]

    def check(self):
        book = self.scheduler._book
        if not self.grown:
            assert book.promised_bytes() <= self.budget
            assert book.held_bytes() <= self.budget
            assert book.peak_bytes <= self.budget
        holds = {s.holds.host for s in book if s.holds} | (
            {book.spare.host} if book.spare else set()
        )
        assert holds == set(self.running), "every live host is charged, and nothing else is"
        for slot in book:
            if slot.holds is not None and slot.state is SlotState.UNLOADING:
                hangs = slot.holds.host in self.stalled
                assert not slot.holds.in_flight or self.scheduler._stopping or hangs
            if slot.state in (SlotState.UNLOADED, SlotState.WAITING):
                assert slot.holds is None
            else:
                assert slot.holds is not None
            if slot.state is SlotState.UNLOADED:
                assert slot.wants is None
            if slot.state is SlotState.READY:
                assert slot.wants == slot.holds.profile
            if slot.state is SlotState.DRAINING:
                assert slot.wants != slot.holds.profile or slot.holds.must_stop
            if slot.holds is not None and slot.holds.profile in book.profiles:
                assert len(slot.holds.in_flight) <= book.profiles[slot.holds.profile].parallel
