"""Playbooks: what happens, and what is decided."""

import pytest

from llmd.core import events as e
from llmd.core import facts
from llmd.errors import (
    BudgetExceededError,
    LoadFailedError,
    ModelNotFoundError,
    PortPinnedError,
    QueueFullError,
    QueueTimeoutError,
    ShuttingDownError,
    UnloadedError,
    WeightsError,
)
from tests.core.world import World, profile


def five(**rules):
    """The playbook's profiles, of 10 each; the budget holds three."""
    return World(
        [
            profile("code", 8081, 10, parallel=2, default=True, aliases=("gpt-4",)),
            profile("code6", 8081, 10),
            profile("chat", 8082, 10),
            profile("raw", 8083, 10),
            profile("reason", 8084, 10, parallel=4),
        ],
        budget=30,
        gateway_port=8080,
        **rules,
    )


def resident(world, *names):
    for name in names:
        world.load(name)
        world.now += 1
        world.up(name)


CRASH = facts.Failure("the engine ended", exit_code=3, log_tail=("out of cheese",))


# --- requests


def test_first_request_loads_the_default_profile_and_is_granted_when_it_is_ready():
    world = five()
    ticket = world.ask(8081)
    assert world.state("code") == "loading"
    world.ready("code")
    assert world.granted[ticket][0] == "code"


def test_scheduler_is_busy_while_somebody_waits_or_is_answered():
    world = five()
    assert not world.scheduler.busy
    ticket = world.ask(8081)
    assert world.scheduler.busy
    world.ready("code")
    assert world.scheduler.busy
    world.finish(ticket)
    assert not world.scheduler.busy


def test_unknown_model_on_a_port_goes_to_whatever_is_resident():
    world = five()
    resident(world, "code6")
    assert world.granted[world.ask(8081, "any")][0] == "code6"


def test_alias_names_its_profile():
    world = five()
    resident(world, "code6")
    ticket = world.ask(8081, "gpt-4")
    world.up("code")
    assert world.granted[ticket][0] == "code"


def test_name_of_another_ports_profile_is_ignored_on_this_port():
    world = five()
    resident(world, "chat")
    assert world.granted[world.ask(8082, "reason")][0] == "chat"


def test_gateway_serves_by_name_and_refuses_unknown_names_with_the_list():
    world = five()
    resident(world, "raw")
    assert world.granted[world.ask(8080, "raw")][0] == "raw"
    error = world.refused[world.ask(8080, "nobody")]
    assert isinstance(error, ModelNotFoundError)
    assert "reason" in error.remedy


def test_no_more_requests_are_in_flight_than_the_engine_has_sequences():
    world = five()
    resident(world, "code")
    first, second, third = (world.ask(8081) for _ in range(3))
    assert first in world.granted
    assert second in world.granted
    assert third not in world.granted
    world.finish(first)
    assert third in world.granted


def test_waiting_requests_are_granted_in_the_order_of_arrival():
    world = five()
    resident(world, "chat")
    running = world.ask(8082)
    world.ask(8082)
    tickets = [world.ask(8082) for _ in range(3)]
    assert running in world.granted
    served = []
    while world.granted:
        ticket = next(iter(world.granted))
        served.append(ticket)
        world.finish(ticket)
    assert served[-3:] == tickets


def test_queue_is_bounded_per_profile():
    world = five(queue_limit=3)
    for _ in range(3):
        world.ask(8082)
    assert isinstance(world.refused[world.ask(8082)], QueueFullError)
    world.ask(8083)
    assert len(world.refused) == 1


def test_burst_that_waited_for_the_daemon_to_start_is_not_refused_for_its_size():
    world = five(queue_limit=3, queue_limit_from_s=5.0)
    world.sleep(4)
    for _ in range(9):
        assert world.ask(8082) in world.open
    world.sleep(1)
    assert isinstance(world.refused[world.ask(8082)], QueueFullError)


def test_request_that_waits_too_long_is_told_so():
    world = five(queue_timeout_s=60)
    ticket = world.ask(8082)
    world.sleep(59)
    assert ticket not in world.refused
    world.sleep(1)
    assert isinstance(world.refused[ticket], QueueTimeoutError)


def test_client_that_hangs_up_leaves_the_queue():
    world = five()
    resident(world, "chat")
    world.ask(8082)
    running = [world.ask(8082)]
    gone, stays = world.ask(8082), world.ask(8082)
    world.finish(gone, served=False)
    for ticket in list(world.granted):
        world.finish(ticket)
    assert stays in world.granted or running


# --- switching and room


def test_named_profile_of_the_port_replaces_an_idle_one_at_once():
    world = five()
    resident(world, "code")
    ticket = world.ask(8081, "code6")
    assert world.state("code") == "unloading"
    world.up("code6")
    assert world.granted[ticket][0] == "code6"
    assert world.noted("profile.evicted")[0]["profile"] == "code"


def test_busy_resident_is_drained_after_patience_not_before():
    world = five(min_residency_s=0)
    resident(world, "code")
    running = world.ask(8081)
    other = world.ask(8081, "code6")
    world.sleep(4.9)
    assert world.state("code") == "ready"
    world.sleep(0.2)
    assert world.state("code") == "draining"
    late = world.ask(8081, "code")
    assert late not in world.granted
    world.finish(running)
    world.up("code6")
    assert world.granted[other][0] == "code6"
    world.finish(other)
    world.up("code")
    assert world.granted[late][0] == "code"


def test_two_overlapping_clients_do_not_keep_a_third_out():
    world = five(min_residency_s=0)
    resident(world, "code")
    ticket = world.ask(8081)
    other = world.ask(8081, "code6")
    for _ in range(20):
        following = world.ask(8081)
        world.sleep(1)
        world.finish(ticket)
        ticket = following
        if world.stopping:
            break
    world.up("code6")
    assert other in world.granted
    assert world.now < 12


def test_busy_resident_keeps_its_min_residency():
    world = five(min_residency_s=10)
    resident(world, "code")
    world.ask(8081)
    world.ask(8081, "code6")
    world.sleep(9.5)
    assert world.state("code") == "ready"
    world.sleep(1)
    assert world.state("code") == "draining"


def test_room_is_made_by_the_idle_and_never_by_the_busy():
    world = five()
    resident(world, "code", "chat", "raw")
    world.ask(8081)
    world.ask(8083)
    ticket = world.ask(8084)
    assert world.state("chat") == "unloading"
    assert world.state("reason") == "waiting"
    world.up("reason")
    assert ticket in world.granted


def test_host_starts_only_after_the_leaving_one_is_reaped():
    world = five()
    resident(world, "code", "chat", "raw")
    world.ask(8084)
    assert "reason" not in world.running.values()
    world.gone(next(iter(world.stopping)))
    assert "reason" in world.running.values()


def test_pinned_resident_is_never_evicted_and_the_refusal_names_it():
    world = World(
        [profile("a", 1, 20, pinned=True), profile("b", 2, 20), profile("c", 3, 10)], budget=30
    )
    resident(world, "a")
    error = world.refused[world.ask(2)]
    assert isinstance(error, BudgetExceededError)
    assert "a 20 B" in error.message
    world.ask(3)
    assert world.state("c") == "loading"


def test_pinned_resident_is_not_replaced_on_its_port():
    world = five()
    resident(world, "code")
    world.send(e.PinChanged("code", pinned=True))
    error = world.refused[world.ask(8081, "code6")]
    assert isinstance(error, PortPinnedError)
    world.send(e.PinChanged("code", pinned=False))
    world.ask(8081, "code6")
    assert world.state("code") == "unloading"


def test_request_waiting_for_a_port_is_refused_when_its_resident_gets_pinned():
    world = five()
    resident(world, "code")
    world.ask(8081)
    waiting = world.ask(8081, "code6")
    world.send(e.PinChanged("code", pinned=True))
    assert isinstance(world.refused[waiting], PortPinnedError)


def test_profile_larger_than_the_budget_is_refused_with_the_numbers():
    world = World([profile("huge", 1, 31)], budget=30)
    error = world.refused[world.ask(1)]
    assert isinstance(error, BudgetExceededError)
    assert "31 B" in error.message
    assert isinstance(world.refused[world.load("huge")], BudgetExceededError)


def test_cheapest_victim_goes_and_lru_can_be_chosen():
    for policy, victim in (("cost", "chat"), ("lru", "code")):
        world = five(eviction=policy)
        for name, load_s in (("code", 60), ("raw", 60), ("chat", 1)):
            world.load(name)
            world.now += load_s
            world.up(name)
        for port in (8081, 8083, 8082):
            world.finish(world.ask(port))
            world.now += 30
        world.ask(8084)
        assert world.state(victim) == "unloading", policy


def test_draining_ends_when_the_one_it_was_for_gives_up():
    world = five(min_residency_s=0)
    resident(world, "code")
    world.ask(8081)
    other = world.ask(8081, "code6")
    world.sleep(6)
    assert world.state("code") == "draining"
    world.finish(other, served=False)
    again = world.ask(8081, "code")
    assert world.state("code") == "ready"
    assert again in world.granted


def test_younger_claim_stands_back_for_one_that_lost_its_patience():
    world = World(
        [profile("a", 1, 10), profile("big", 2, 30), profile("c", 3, 10), profile("d", 4, 10)],
        budget=30,
        min_residency_s=60,
    )
    resident(world, "a", "c")
    busy = [world.ask(1), world.ask(3)]
    big = world.ask(2)
    world.sleep(6)
    world.ask(4)
    assert world.state("d") == "waiting", "there is room for it, and it would be in the way"
    world.sleep(60)
    assert "d" not in world.running.values()
    for ticket in busy:
        world.finish(ticket)
    world.up("big")
    assert big in world.granted


# --- loads given up, failing, idle


def test_load_nobody_waits_for_is_given_up_after_a_pause():
    world = five()
    ticket = world.ask(8081)
    world.finish(ticket, served=False)
    assert world.state("code") == "loading"
    world.sleep(5.1)
    assert world.state("code") == "unloading"


def test_client_that_comes_back_finds_its_load_going_on():
    world = five()
    world.finish(world.ask(8081), served=False)
    world.sleep(3)
    again = world.ask(8081)
    world.sleep(10)
    assert world.state("code") == "loading"
    world.ready("code")
    assert again in world.granted


def test_load_nobody_waits_for_gives_way_at_once():
    world = five()
    world.finish(world.ask(8081, "code"), served=False)
    world.ask(8081, "code6")
    assert world.state("code") == "unloading"


def test_load_an_administrator_asked_for_is_not_given_up():
    world = five()
    ticket = world.load("code")
    world.sleep(100)
    world.ready("code")
    assert world.completed[ticket].changed


def test_failed_load_answers_everybody_with_exit_code_and_log_and_backs_off():
    world = five()
    tickets = [world.ask(8081), world.load("code")]
    world.gone("code", CRASH)
    for ticket in tickets:
        error = world.refused[ticket]
        assert isinstance(error, LoadFailedError)
        assert "exit code 3" in error.message
        assert "out of cheese" in error.message
    assert world.state("code") == "failed"
    assert isinstance(world.refused[world.ask(8081)], LoadFailedError)
    world.sleep(1.01)
    world.ask(8081)
    assert world.state("code") == "loading"


def test_back_off_doubles_to_five_minutes_and_evicts_nobody():
    world = World([profile("a", 1, 10), profile("b", 2, 10)], budget=10)
    delays = []
    for _ in range(12):
        world.ask(2)
        world.gone("b", CRASH)
        delays.append(round(world.refused[world.ask(2)].retry_after_s))
        world.sleep(delays[-1] + 0.01)
    assert delays[:4] == [1, 2, 4, 8]
    assert delays[-1] == 300
    world.ask(2)
    world.gone("b", CRASH)
    resident(world, "a")
    world.ask(2)
    assert world.state("a") == "ready"


def test_administrator_may_try_again_at_once():
    world = five()
    world.ask(8081)
    world.gone("code", CRASH)
    world.load("code")
    assert world.state("code") == "loading"


def test_host_that_dies_in_use_is_started_again_for_those_who_wait():
    world = five()
    resident(world, "chat")
    world.finish(world.ask(8082))
    world.ask(8082)
    waiting = world.ask(8082)
    world.gone("chat", CRASH)
    assert waiting not in world.refused
    assert world.state("chat") == "loading"
    world.ready("chat")
    assert waiting in world.granted


def test_two_that_drain_do_not_resume_in_turn_while_a_third_starves():
    world = World([profile("a", 1, 2), profile("b", 2, 3), profile("c", 3, 2)], budget=5)
    resident(world, "a", "b")
    answering = world.ask(1)
    world.ask(2)
    third = world.ask(3)
    world.sleep(11)
    assert world.state("a") == "draining"
    world.ask(1)
    world.sleep(11)
    assert (world.state("a"), world.state("b")) == ("draining", "ready")
    world.finish(answering)
    world.up("c")
    assert third in world.granted


def test_claim_uncovered_by_a_promise_is_heard_at_once():
    world = World([profile("a", 1, 2), profile("b", 1, 3), profile("c", 2, 2)], budget=3)
    resident(world, "b")
    world.ask(1)
    gives_up = world.ask(2)
    world.ask(1, "b")
    world.ask(1, "a")
    world.sleep(11)
    assert world.view().ports[1].profile == "c"
    world.finish(gives_up, served=False)
    assert len(world.noted("drain.ended")) == 1  # for the older one of port 1
    assert world.view().ports[0].profile == "a"


def test_nobody_is_evicted_for_who_names_no_profile_while_the_default_backs_off():
    world = World([profile("a", 1, 3), profile("b", 1), profile("c", 2, 2)], budget=3)
    world.ask(1)
    world.gone("a", CRASH)
    for name in ("b", "c"):
        world.load(name)
        world.ready(name)
    world.ask(1)
    waiting = world.ask(1)
    world.gone("b", CRASH)
    assert isinstance(world.refused[waiting], LoadFailedError)
    assert world.state("c") == "ready"


def test_nobody_is_evicted_for_who_names_no_profile_while_the_default_cannot_be_loaded():
    fault = WeightsError("no such weights")
    world = World([profile("a", 1, 3, fault=fault), profile("b", 1), profile("c", 2, 2)], budget=3)
    resident(world, "b", "c")
    world.ask(1)
    waiting = world.ask(1)
    world.gone("b", CRASH)
    assert world.refused[waiting] is fault
    assert world.state("c") == "ready"


def test_host_that_dies_again_before_it_served_anybody_backs_off():
    world = five()
    resident(world, "chat")
    world.gone("chat", CRASH)
    world.ask(8082)
    world.ready("chat")
    world.gone("chat", CRASH)
    assert isinstance(world.refused[world.ask(8082)], LoadFailedError)


def test_idle_resident_is_unloaded_after_its_ttl_and_a_pinned_one_is_not():
    world = World(
        [profile("a", 1, idle_ttl_s=60), profile("b", 2, idle_ttl_s=60, pinned=True)], budget=30
    )
    resident(world, "a", "b")
    world.finish(world.ask(1))
    world.finish(world.ask(2))
    world.sleep(59)
    assert world.state("a") == "ready"
    world.sleep(2)
    assert world.state("a") == "unloading"
    assert world.state("b") == "ready"


def test_busy_resident_is_not_idle_however_long_it_takes():
    world = World([profile("a", 1, idle_ttl_s=60)], budget=30)
    resident(world, "a")
    ticket = world.ask(1)
    world.sleep(1000)
    assert world.state("a") == "ready"
    world.finish(ticket)
    world.sleep(59)
    assert world.state("a") == "ready"
    world.sleep(2)
    assert world.state("a") == "unloading"


def test_idle_time_runs_out_also_for_one_that_was_busy_when_somebody_looked():
    world = World([profile("a", 1, idle_ttl_s=60)], budget=30)
    resident(world, "a")
    world.finish(world.ask(1))  # wakes at 60
    ticket = world.ask(1)
    world.sleep(100)
    world.finish(ticket)
    world.sleep(59)
    assert world.state("a") == "ready"
    world.sleep(2)
    assert world.state("a") == "unloading"


# --- commands


def test_load_of_a_resident_changes_nothing_and_says_so():
    world = five()
    resident(world, "code")
    assert not world.completed[world.load("code")].changed


def test_load_says_whom_it_evicted():
    world = five()
    resident(world, "code", "chat", "raw")
    ticket = world.load("reason")
    world.up("reason")
    assert len(world.completed[ticket].evicted) == 1


def test_load_with_pin_and_ttl_takes_both():
    world = five()
    world.load("chat", pin=True, ttl_s=5)
    world.ready("chat")
    view = next(p for p in world.view().profiles if p.name == "chat")
    assert view.pinned
    assert view.idle_ttl_s == 5


def test_unload_waits_for_the_request_in_flight_and_refuses_the_waiting():
    world = five()
    resident(world, "chat")
    running = world.ask(8082)
    world.ask(8082)
    unload = world.unload("chat")
    assert world.state("chat") == "draining"
    for ticket in list(world.granted):
        world.finish(ticket)
    assert unload not in world.completed
    world.gone(next(iter(world.stopping)))
    assert world.completed[unload].changed
    assert running not in world.refused


def test_unload_during_a_load_ends_it_and_tells_those_who_wait():
    world = five()
    ticket = world.ask(8082)
    unload = world.unload("chat")
    assert isinstance(world.refused[ticket], UnloadedError)
    world.gone(next(iter(world.stopping)))
    assert world.completed[unload].changed


def test_unload_of_what_is_not_loaded_changes_nothing():
    world = five()
    assert not world.completed[world.unload("chat")].changed


def test_unknown_profile_is_refused_with_the_names():
    world = five()
    for ticket in (world.load("cod"), world.unload("cod")):
        assert isinstance(world.refused[ticket], ModelNotFoundError)
        assert "code6" in world.refused[ticket].remedy


def test_profile_without_weights_is_refused_before_anybody_is_evicted():
    fault = WeightsError("there are no weights", remedy="llmd-ctl pull")
    world = World([profile("a", 1, 10), profile("b", 2, 10, fault=fault)], budget=10)
    resident(world, "a")
    assert world.refused[world.ask(2)] is fault
    assert world.refused[world.load("b")] is fault
    assert world.state("a") == "ready"
    assert world.state("b") == "failed"


def test_stopping_refuses_the_waiting_finishes_the_running_and_stops_every_host():
    world = five()
    resident(world, "code", "chat")
    running, waiting = world.ask(8081), world.ask(8084)
    world.send(e.Stopping())
    assert isinstance(world.refused[waiting], ShuttingDownError)
    assert isinstance(world.refused[world.ask(8081)], ShuttingDownError)
    assert world.state("code") == "draining"
    world.finish(running)
    assert world.stopping == set(world.running)


def test_forced_stop_ends_the_busy_too():
    world = five()
    resident(world, "code")
    world.ask(8081)
    world.send(e.Stopping())
    world.send(e.Stopping(force=True))
    assert world.stopping == set(world.running)


def test_preview_names_the_victims_and_changes_nothing():
    world = five()
    resident(world, "code", "chat", "raw")
    before = world.view()
    names, error = world.scheduler.preview("reason", world.now)
    assert error is None
    assert len(names) == 1
    assert world.view() == before
    assert world.scheduler.preview("code6", world.now) == (("code",), None)
    assert world.scheduler.preview("code", world.now) == ((), None)


def test_unload_of_what_waits_for_room_takes_the_promise_back():
    world = five()
    resident(world, "code", "chat", "raw")
    loading = world.load("reason")
    assert world.state("reason") == "waiting"
    unload = world.unload("reason")
    assert isinstance(world.refused[loading], UnloadedError)
    assert world.completed[unload].changed
    world.gone(next(iter(world.stopping)))
    assert "reason" not in world.running.values()


def test_older_promise_starts_first_when_room_comes_bit_by_bit():
    world = World(
        [profile("a", 1, 10), profile("b", 2, 10), profile("x", 3, 10), profile("y", 4, 10)],
        budget=20,
    )
    resident(world, "a", "b")
    world.load("y")
    world.load("x")
    world.gone(next(iter(world.stopping)))
    assert "y" in world.running.values()
    assert "x" not in world.running.values()


def test_load_of_a_resident_starts_its_idle_time_again():
    world = World([profile("a", 1, idle_ttl_s=60)], budget=30)
    resident(world, "a")
    world.sleep(50)
    world.load("a")
    world.sleep(50)
    assert world.state("a") == "ready"


def test_reload_gives_a_resident_its_new_ttl():
    world = World([profile("a", 1, idle_ttl_s=1000)], budget=30)
    resident(world, "a")
    changed = profile("a", 1, idle_ttl_s=10)
    world.send(e.ConfigReplaced(facts.Rules(budget_bytes=30), (changed,)))
    world.sleep(11)
    assert world.state("a") == "unloading"


def test_peak_is_the_most_that_was_ever_held():
    world = five()
    resident(world, "code", "chat")
    world.unload("code")
    world.gone(next(iter(world.stopping)))
    view = world.view()
    assert (view.used_bytes, view.peak_bytes) == (10, 20)


# --- memory


def test_growth_is_charged_and_idle_residents_make_up_for_it():
    world = five()
    resident(world, "code", "chat", "raw")
    world.grown = True
    world.send(e.MemoryMeasured(world.host("raw"), 14))
    assert [world.state(n) for n in ("code", "chat", "raw")].count("unloading") == 1
    assert world.noted("footprint.raised")[0]["bytes"] == 14


def test_growth_with_everybody_busy_trims_caches_and_kills_nobody():
    world = five()
    resident(world, "code", "chat", "raw")
    for port in (8081, 8082, 8083):
        world.ask(port)
    world.grown = True
    world.send(e.MemoryMeasured(world.host("raw"), 14))
    assert len(world.trimmed) == 3
    assert not world.stopping


def test_each_overrun_is_told_once():
    world = five()
    resident(world, "code", "chat", "raw")
    busy = [world.ask(port) for port in (8081, 8082, 8083)]
    world.grown = True
    for measured in (14, 15):
        world.send(e.MemoryMeasured(world.host("raw"), measured))
    assert len(world.noted("budget.overrun")) == 1
    world.finish(busy[0])
    world.send(e.Ticked())
    world.gone(next(iter(world.stopping)))
    world.send(e.MemoryMeasured(world.host("raw"), 25))
    assert len(world.noted("budget.overrun")) == 2


def test_measuring_less_than_charged_changes_nothing():
    world = five()
    resident(world, "code")
    assert world.send(e.MemoryMeasured(world.host("code"), 3)) == []
    assert world.view().used_bytes == 10


def test_pressure_takes_one_idle_resident_at_a_time():
    world = five()
    resident(world, "code", "chat")
    world.ask(8081)
    world.send(e.PressureRose("some 20 %"))
    assert world.state("chat") == "unloading"
    world.send(e.PressureRose("some 20 %"))
    assert world.state("code") == "ready"
    assert world.trimmed


# --- configuration


def test_reload_leaves_the_unchanged_alone_and_replaces_the_changed():
    world = five()
    resident(world, "code", "chat", "raw")
    code, chat = world.profiles["code"], world.profiles["chat"]
    changed = facts.Residency("chat", 8082, 10, fingerprint="other context")
    world.send(e.ConfigReplaced(facts.Rules(budget_bytes=30), (code, changed)))
    assert world.state("code") == "ready"
    assert world.state("chat") == "unloading"
    assert chat is not changed
    assert len(world.stopping) == 2  # raw left the file
    waiting = world.ask(8082)
    world.up("chat")
    assert waiting in world.granted


def test_reload_refuses_those_who_wait_for_what_is_gone():
    world = five()
    ticket = world.ask(8082)
    world.send(e.ConfigReplaced(facts.Rules(budget_bytes=30), (world.profiles["code"],)))
    assert isinstance(world.refused[ticket], UnloadedError)
    world.gone(next(iter(world.stopping)))
    assert [port.port for port in world.view().ports] == [8081]


def test_smaller_budget_evicts_the_idle():
    world = five()
    resident(world, "code", "chat", "raw")
    world.budget, world.grown = 20, True
    world.send(e.ConfigReplaced(facts.Rules(budget_bytes=20), tuple(world.profiles.values())))
    assert len(world.stopping) == 1


def test_preload_is_loaded_at_start_without_anybody_waiting():
    world = World([profile("a", 1, preload=True)], budget=30)
    assert world.state("a") == "loading"
    world.sleep(100)
    world.ready("a")
    assert world.state("a") == "ready"


# --- the warm spare


def spared(budget=30):
    return World(
        [
            profile("code", 1, 10, spare_kind="mlx"),
            profile("chat", 2, 10, spare_kind="mlx"),
            profile("raw", 3, 10),
        ],
        budget=budget,
        spare_bytes=5,
    )


def test_load_takes_the_spare_and_a_new_one_starts_after_a_pause():
    world = spared()
    (host,) = world.spares
    world.send(e.HostReady(host))
    world.ask(1)
    assert world.running == {host: "code"}
    world.ready("code")
    assert not world.spares
    world.sleep(2.1)
    assert len(world.spares) == 1


def test_spare_that_is_still_importing_is_taken_too():
    world = spared()
    (host,) = world.spares
    world.ask(1)
    assert world.running == {host: "code"}


def test_spare_gives_way_to_a_profile_that_cannot_use_it():
    world = spared(budget=12)
    (host,) = world.spares
    world.ask(3)
    assert world.stopping == {host}
    world.gone(host)
    assert world.state("raw") == "loading"


def test_spare_is_not_started_without_room_or_use():
    world = spared(budget=12)
    world.ask(1)
    world.ready("code")
    world.sleep(100)
    assert not world.spares


def test_spare_that_fails_is_not_started_again_at_once():
    world = spared()
    world.gone(next(iter(world.spares)), CRASH)
    world.sleep(59)
    assert not world.spares
    world.sleep(2)
    assert world.spares


@pytest.mark.parametrize("name", ["code", "chat"])
def test_measured_spare_is_charged_what_it_holds(name):
    world = spared()
    (host,) = world.spares
    world.send(e.MemoryMeasured(host, 7))
    assert world.view().spare_bytes == 7
    world.load(name)
    assert world.view().used_bytes == 10
