"""A world that also watches what the design promises of eviction, order and backing off."""

from llmd.core import events as e
from llmd.core.slot import SlotState
from tests.core.world import World


class Watched(World):
    """Keeps nothing of the past that its future does not need, so that it is quick to copy."""

    def send(self, event):
        self.notes, self.trimmed, self.completed = [], [], {}
        book, rules = self.scheduler._book, self.scheduler._book.rules
        idle = {slot.wants for slot in book if slot.idle}
        ready_s = {s.holds.profile: s.holds.ready_s for s in book if s.holds is not None}
        oldest_s = min((w.arrived_s for slot in book for w in slot.queue), default=self.now)
        impatient = self.now - oldest_s >= rules.patience_s
        effects = super().send(event)
        for note in self.notes:
            match note.name:
                case "profile.evicted":
                    name = note.fields["profile"]
                    assert not self.scheduler._book.pinned(name), f"{name} is pinned"
                    if note.fields["in_flight"]:
                        assert name not in idle
                        assert impatient, "a busy resident goes for who has waited long enough only"
                        resided_s = self.now - ready_s[name]
                        assert resided_s >= rules.min_residency_s, "and not before its time"
                case "load.promised":
                    self.check_may_load(note.fields["profile"])
        for effect in effects:
            match effect:
                case e.Grant():
                    self.check_turn(effect)
                case e.StartHost(profile=name):
                    self.check_may_load(name)
        self.check_work()
        return effects

    def check_may_load(self, name):
        past = self.scheduler._book.histories[name]
        assert past.refusal(self.now) is None, f"{name} backs off, and evicts nobody"

    def check_turn(self, grant):
        """Whoever asked the same before was served before."""
        slot = self.scheduler._book.by_host(grant.host)[0]
        for waiter in slot.waiters_for(grant.profile):
            assert waiter.ticket > grant.ticket, f"{grant.ticket} overtook {waiter.ticket}"

    def check_work(self):
        """A host with a free sequence leaves nobody waiting for it."""
        book = self.scheduler._book
        for slot in book:
            if slot.state is SlotState.READY and slot.awaited(slot.holds.profile):
                parallel = book.profiles[slot.holds.profile].parallel
                assert len(slot.holds.in_flight) >= parallel, f"{slot.port} idles while some wait"
