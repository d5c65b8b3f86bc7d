"""A profile that is somebody else's server."""

import json

from tests.lessons import FRANCE
from tests.system.running import GOOD, ask, free_ports, lay_out, request


PROMPT, ANSWER = FRANCE


def test_remote_profile_passes_on_and_costs_nothing(start, demo_models):
    far, near = free_ports(2)
    start(
        {
            "budget": "1GiB", "gateway": None, "models_dirs": [str(demo_models)],
            "profiles": {"raw": {"engine": "llama.cpp", "model": "tiny-q8_0.gguf", "port": far}},
        }
    )  # fmt: skip
    daemon = start(
        lay_out({"big": {"engine": "remote", "url": f"http://127.0.0.1:{far}/v1", "port": near}})
    )
    assert ask(near, PROMPT)["content"] == ANSWER
    assert daemon.status()["budget"]["used_bytes"] == 0


def test_remote_that_is_not_there_is_a_clear_error(start):
    far, near = free_ports(2)
    start(lay_out({"big": {"engine": "remote", "url": f"http://127.0.0.1:{far}", "port": near}}))
    answer = request(near, body=GOOD)
    assert answer[0] == 502
    assert json.loads(answer[2])["error"]["code"] == "engine_died"
