"""Steady, mixed traffic on the demo models: streams, documents, clients that leave, swaps."""

import asyncio
import itertools
import random
import time

from tests.chaos.clients import Client
from tests.chaos.script import PROMPTS, Ask


REQUESTS_PER_S = 3.0
SWAP_S = 20.0
"""Each of the two profiles that share a port has it for so long."""
STEADY = {"code": 3, "raw": 3, "reason": 2, "gateway": 1}
"""How often each is asked; the gateway is asked for `reason`."""
SWAPPED = ("small", "large")


def lay_out(ports, models_dir):
    """Three residents that stay, and a port on which two take turns; there is room for all."""
    llama = {"engine": "llama.cpp", "args": ["--threads", "1"], "context": 2048}
    return {
        "budget": "1GiB", "gateway": {"port": ports["gateway"]}, "models_dirs": [str(models_dir)],
        "profiles": {
            "code": {
                "engine": "mlx", "model": "tiny-mlx", "context": 2048, "port": ports["code"],
                "prompt_cache": "16MiB",
            },
            "raw": {**llama, "model": "tiny-q8_0.gguf", "port": ports["raw"]},
            "reason": {**llama, "model": "tiny-f16.gguf", "port": ports["reason"], "parallel": 4},
            "small": {**llama, "model": "tiny-q8_0.gguf", "port": ports["swapped"]},
            "large": {**llama, "model": "tiny-f16.gguf", "port": ports["swapped"]},
        },
    }  # fmt: skip


PORTS = ("gateway", "code", "raw", "reason", "swapped")


class Traffic:
    """Asks until cancelled; *answered* is told how long each answer took.

    What a client is told and does is the seed's; when, the clock's.
    """

    def __init__(self, ports, tally, seed, answered):
        self._ports = ports
        self._tally = tally
        self._dice = random.Random(seed)
        self._answered = answered

    async def run(self):
        began = time.monotonic()
        async with asyncio.TaskGroup() as clients:
            for number in itertools.count():
                await asyncio.sleep(max(0.0, began + number / REQUESTS_PER_S - time.monotonic()))
                clients.create_task(self._ask(time.monotonic() - began))

    async def _ask(self, passed_s):
        dice = self._dice
        name = dice.choices((*STEADY, "swapped"), (*STEADY.values(), 1))[0]
        profile = name
        if name == "gateway":
            profile = "reason"
        elif name == "swapped":
            profile = SWAPPED[int(passed_s / SWAP_S) % 2]
        ask = Ask(
            profile,
            dice.choice(PROMPTS),
            stream=dice.random() < 0.6,
            gateway=name == "gateway",
            leave_s=round(dice.uniform(0, 0.5), 3) if dice.random() < 0.1 else None,
            slow=dice.choice(("", "", "", "", "", "", "", "reader", "writer", "")),
        )
        client = Client(ask, self._ports, name, self._tally)
        await client.run()
        if ask.leave_s is None and not ask.slow and name != "swapped":
            self._answered(time.monotonic() - client.began_s)
