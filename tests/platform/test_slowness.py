"""What the system prints about swapping, power and heat, as macOS and Linux print it."""

import pytest

from llmd.platform.run import Ran
from llmd.platform.slowness import Power, power_of_mac, swapped_pages_linux, swapped_pages_mac


PMSET = """System-wide power settings:
Currently in use:
 standby              1
 Sleep On Power Button 1
 {key}         {value}
 hibernatemode        3
"""
THERM = """Note: No thermal warning level has been recorded
2026-07-01 10:00:00 +0200 CPU Power notify
\tCPU_Scheduler_Limit \t= 100
\tCPU_Available_CPUs \t= 8
\tCPU_Speed_Limit \t= {speed}
"""
VM_STAT = """Mach Virtual Memory Statistics: (page size of 16384 bytes)
Pages free:                               10000.
Swapins:                                     120.
Swapouts:                                    345.
"""


@pytest.mark.parametrize(
    ("key", "value", "speed", "expected"),
    [
        pytest.param("lowpowermode", 1, 100, Power(saves=True), id="low power"),
        pytest.param("powermode", 1, 100, Power(saves=True), id="low power, other key"),
        pytest.param("powermode", 2, 100, Power(), id="high power"),
        pytest.param("lowpowermode", 0, 58, Power(speed_percent=58), id="hot"),
    ],
)
def test_power_is_what_pmset_says(key, value, speed, expected):
    def run(argv, *, timeout_s):
        hot = THERM.format(speed=speed)
        return Ran(0, hot if argv[-1] == "therm" else PMSET.format(key=key, value=value))

    assert power_of_mac(run) == expected


def test_pmset_that_says_nothing_means_nothing():
    assert power_of_mac(lambda _argv, *, timeout_s: Ran(127, "no such program")) == Power()


def test_swapped_pages_are_counted_both_ways(tmp_path):
    assert swapped_pages_mac(lambda _argv, *, timeout_s: Ran(0, VM_STAT)) == 465
    (tmp_path / "vmstat").write_text("pgpgin 5\npswpin 7\npswpout 8\nzswpin 9\n")
    assert swapped_pages_linux(tmp_path / "vmstat") == 15
    assert swapped_pages_linux(tmp_path / "nothing") == 0
