import pytest

from llmd.config.budget import MachineMemory, budget_bytes
from llmd.config.models import Config


GIB = 2**30
PROFILES = {"a": {"engine": "mlx", "model": "m", "port": 8081}}
MAC = MachineMemory(64 * GIB, gpu_limit_bytes=48 * GIB, unified=True)
UNASKED_MAC = MachineMemory(60 * GIB, unified=True)
PC = MachineMemory(64 * GIB)


@pytest.mark.parametrize(
    ("budget", "machine", "expected"),
    [
        pytest.param("auto", MAC, 48 * GIB, id="auto is the GPU's limit"),
        pytest.param(
            "auto", UNASKED_MAC, 40 * GIB, id="auto is two thirds where the limit is unknown"
        ),
        pytest.param("auto", PC, 48 * GIB, id="auto is three quarters of other machines"),
        pytest.param("AUTO", PC, 48 * GIB, id="auto in capitals"),
        pytest.param("50%", MAC, 32 * GIB, id="a share is of memory, not of the GPU's limit"),
        pytest.param(" 12.5 % ", PC, 8 * GIB, id="a fraction of a percent, with spaces"),
        pytest.param("48GiB", PC, 48 * GIB, id="a size is what it says"),
        pytest.param(48 * GIB, PC, 48 * GIB, id="a number of bytes"),
        pytest.param("128GiB", PC, 128 * GIB, id="more than the machine has is the user's choice"),
    ],
)
def test_budget(budget, machine, expected):
    assert budget_bytes(Config(budget=budget, profiles=PROFILES), machine) == expected


def test_a_gpu_limit_beyond_memory_does_not_count():
    machine = MachineMemory(16 * GIB, gpu_limit_bytes=48 * GIB)
    assert budget_bytes(Config(profiles=PROFILES), machine) == 16 * GIB
