"""A real daemon beside a small model of it: whatever administrators and clients do, they agree.

`LLMD_MACHINE_EXAMPLES=200` looks longer than the suite does.
"""

import json
import os

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.system.running import free_ports, request, unruly


EXAMPLES = int(os.environ.get("LLMD_MACHINE_EXAMPLES", "6"))
STEPS = 14
MIB = 2**20
SIZES = {"a1": 100, "a2": 150, "b": 100, "c": 200}
"""In MiB. `a1` and `a2` share a port; `a1` is its default."""
BUDGETS = {"base": 300, "less": 250, "without c": 300, "b changed": 300}
PORT_OF = {"a1": "a", "a2": "a", "b": "b", "c": "c"}
NAMES = st.sampled_from(sorted(SIZES))


def lay_out(ports, variant):
    profiles = {
        name: unruly(ports[PORT_OF[name]], memory=f"{size}MiB", default=name == "a1")
        for name, size in SIZES.items()
    }
    if variant == "without c":
        del profiles["c"]
    if variant == "b changed":
        profiles["b"]["env"] = {"CHANGED": "1"}
    budget = f"{BUDGETS[variant]}MiB"
    return {"budget": budget, "gateway": None, "watch_config": False, "profiles": profiles}


class Reference:
    """What a daemon should hold and say, when nothing is under way.

    Whom it evicts is its own choice; that it may, that it has to, and no more than that, is not.
    """

    def __init__(self, counts):
        self.variant = "base"
        self.bad_file = False
        self.residents = set()
        self.pinned = set()
        self.counts = counts

    @property
    def budget(self):
        return BUDGETS[self.variant]

    def known(self, name):
        return name != "c" or self.variant != "without c"

    def on(self, port):
        """Who is resident on *port*."""
        return next((name for name in self.residents if PORT_OF[name] == port), None)

    def obstacle(self, name):
        """The code of the error that a load of *name* ends with; None when it can be loaded."""
        if not self.known(name):
            return "model_not_found"
        if name in self.residents:
            return None
        pinned = self.residents & self.pinned
        if any(PORT_OF[other] == PORT_OF[name] for other in pinned):
            return "port_pinned"
        needed = SIZES[name] + sum(SIZES[other] for other in pinned)
        return "budget_exceeded" if needed > self.budget else None

    def load(self, name, evicted):
        """*name* was loaded, and *evicted* went for it: whether they had to."""
        if name in self.residents:
            assert not evicted
            return
        replaced = {other for other in self.residents if PORT_OF[other] == PORT_OF[name]}
        self.make_room(SIZES[name], set(evicted), replaced)
        assert replaced <= set(evicted)
        self.residents.add(name)
        self.counts[name]["loads"] += 1

    def make_room(self, need, evicted, replaced=frozenset()):
        """*evicted* went: none of them was pinned, and each had to, *replaced* in any case."""
        assert evicted <= self.residents - self.pinned
        self.residents -= evicted
        free = self.budget - need - sum(SIZES[name] for name in self.residents)
        assert free >= 0 or self.residents <= self.pinned
        assert all(free < SIZES[name] for name in evicted - replaced)
        for name in evicted:
            self.counts[name]["evictions"] += 1

    def reload(self, variant, residents):
        """*variant* came into force, and *residents* are left."""
        if "b changed" in {variant, self.variant} and variant != self.variant:
            self.residents.discard("b")
        self.variant, self.bad_file = variant, False
        self.residents &= {name for name in SIZES if self.known(name)}
        assert residents <= self.residents
        self.make_room(0, self.residents - residents)

    def status(self):
        """What is to be seen of all that."""
        return {
            "total": self.budget,
            "used": sum(SIZES[name] for name in self.residents),
            "bad": self.bad_file,
            "ports": {port: self.on(port) for port in "abc" if port != "c" or self.known("c")},
            "profiles": {
                name: {
                    "state": "ready" if name in self.residents else "unloaded",
                    "pinned": name in self.pinned,
                    "footprint": SIZES[name] if name in self.residents else 0,
                    "busy": 0,
                    **self.counts[name],
                }
                for name in SIZES
                if self.known(name)
            },
        }


class Machine(RuleBasedStateMachine):
    """Commands and requests, one after the other; `daemon` and `ports` are the test's."""

    @initialize()
    def begin(self):
        for name in SIZES:
            self.daemon.admin("POST", f"/v1/profiles/{name}/unpin")
        self.put("base")
        assert self.daemon.admin("POST", "/v1/reload")[0] == 200
        assert self.daemon.admin("POST", "/v1/unload")[0] == 200
        counted = ("loads", "evictions", "requests")
        self.reference = Reference(
            {p["name"]: {key: p[key] for key in counted} for p in self.daemon.status()["profiles"]}
        )
        self.restarts_left = 1

    @rule(name=NAMES, pin=st.booleans())
    def load(self, name, pin):
        planned = self.planned(name)
        status, answer = self.post(name, "load", {"pin": pin})
        if pin and self.reference.known(name):
            self.reference.pinned.add(name)  # also where it could not be loaded
        if not self.refused(self.reference.obstacle(name), status, answer):
            assert answer["changed"] == (name not in self.reference.residents)
            assert sorted(answer["evicted"]) == planned
            self.reference.load(name, answer["evicted"])

    @rule(name=NAMES)
    def plan(self, name):
        self.planned(name)  # it changes nothing, as the next look shows

    def planned(self, name):
        """Whom a load would evict."""
        status, answer = self.daemon.admin("GET", f"/v1/profiles/{name}/plan")
        if not self.reference.known(name):
            assert status == 404
            return []
        assert status == 200
        assert answer["fits"] == (self.reference.obstacle(name) is None), answer
        return sorted(victim["profile"] for victim in answer["evict"])

    @rule(name=NAMES)
    def unload(self, name):
        status, answer = self.post(name, "unload")
        if not self.refused(
            None if self.reference.known(name) else "model_not_found", status, answer
        ):
            assert set(answer["unloaded"]) == {name} & self.reference.residents
            self.reference.residents.discard(name)

    @rule()
    def unload_all(self):
        status, answer = self.daemon.admin("POST", "/v1/unload")
        assert status == 200
        assert set(answer["unloaded"]) == self.reference.residents
        self.reference.residents.clear()

    @rule(name=NAMES, pinned=st.booleans())
    def pin(self, name, pinned):
        status, answer = self.post(name, "pin" if pinned else "unpin")
        if not self.refused(
            None if self.reference.known(name) else "model_not_found", status, answer
        ):
            (self.reference.pinned.add if pinned else self.reference.pinned.discard)(name)

    @rule(port=st.sampled_from("abc"), model=NAMES | st.just("gpt-4") | st.none())
    def ask(self, port, model):
        reference = self.reference
        if port == "c" and not reference.known("c"):
            return  # it is closed
        named = model in SIZES and PORT_OF[model] == port
        name = model if named else reference.on(port) or {"a": "a1"}.get(port, port)
        before = set(reference.residents)
        body = {
            "messages": [{"role": "user", "content": "hi"}],
            **({"model": model} if model else {}),
        }
        status, headers, answer = request(self.ports[port], body=body)
        if not self.refused(reference.obstacle(name), status, json.loads(answer)):
            assert headers["X-LLMD-Profile"] == name
            reference.load(name, before - self.residents() if name not in before else ())
            reference.counts[name]["requests"] += 1

    @rule(variant=st.sampled_from(sorted(BUDGETS)))
    def reload(self, variant):
        self.put(variant)
        status, answer = self.daemon.admin("POST", "/v1/reload")
        assert status == 200, answer
        self.daemon.wait_for(lambda status: not moving(status))
        self.reference.reload(variant, self.residents())

    @rule()
    def reload_bad_file(self):
        self.daemon.write_config("profiles: [")
        assert self.refused("config_invalid", *self.daemon.admin("POST", "/v1/reload"))
        self.reference.bad_file = True

    @precondition(lambda self: self.restarts_left and not self.reference.bad_file)
    @rule(how=st.sampled_from(["restart", "crash"]))
    def come_back(self, how):
        """Nothing that is configured is lost by it, but for the last requests in the count."""
        self.restarts_left -= 1
        if how == "crash":
            self.daemon.kill()
            self.daemon.start()
            for profile in self.daemon.status()["profiles"]:
                counts = self.reference.counts[profile["name"]]
                # What changes with each request is written down within seconds, not at once.
                assert profile["requests"] <= counts["requests"]
                counts["requests"] = profile["requests"]
        else:
            done = self.daemon.ctl("restart")
            assert done.returncode == 0, done.stderr
        if not self.reference.known("c"):
            # Who is not in the configuration at that moment is forgotten.
            self.reference.counts["c"] = dict.fromkeys(self.reference.counts["c"], 0)
            self.reference.pinned.discard("c")

    # --- looking

    @invariant()
    def agrees(self):
        expected = self.reference.status()
        try:
            self.daemon.wait_for(lambda status: self.seen(status) == expected, timeout=10)
        except AssertionError:
            assert self.seen(self.daemon.status()) == expected

    def seen(self, status):
        """*status* as the reference would say it."""
        names = {number: port for port, number in self.ports.items()}
        budget = status["budget"]
        assert budget["peak_bytes"] <= max(BUDGETS.values()) * MIB
        return {
            "total": budget["total_bytes"] // MIB,
            "used": budget["used_bytes"] // MIB,
            "bad": status["config_error"] is not None,
            "ports": {names[port["port"]]: port["profile"] for port in status["ports"]},
            "profiles": {
                p["name"]: {
                    "state": p["state"],
                    "pinned": p["pinned"],
                    "footprint": p["footprint_bytes"] // MIB,
                    "busy": p["in_flight"] + p["queued"],
                    "loads": p["loads"],
                    "evictions": p["evictions"],
                    "requests": p["requests"],
                }
                for p in status["profiles"]
            },
        }

    def residents(self):
        return {p["name"] for p in self.daemon.status()["profiles"] if p["state"] == "ready"}

    # --- doing

    def put(self, variant):
        self.daemon.write_config(lay_out(self.ports, variant))

    def post(self, name, command, body=None):
        return self.daemon.admin("POST", f"/v1/profiles/{name}/{command}", body)

    def refused(self, code, status, answer):
        """Whether it was, with *code*; None: it was not."""
        if code is None:
            assert status == 200, answer
            return False
        assert (status >= 400, answer["error"]["code"]) == (True, code), answer
        assert answer["error"]["message"]
        return True


def moving(status):
    """Whether something is still coming or going."""
    return any(p["state"] not in ("ready", "unloaded", "failed") for p in status["profiles"])


def test_daemon_and_reference_agree(start):
    ports = dict(zip("abc", free_ports(3), strict=True))
    machine = type("Bound", (Machine,), {"daemon": start(lay_out(ports, "base")), "ports": ports})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
