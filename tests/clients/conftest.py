import json

import pytest

from tests.clients.running import Surroundings
from tests.lessons import LESSONS, TOOLS
from tests.system.conftest import demo_config, running


@pytest.fixture(scope="package")
def demo(demo_models):
    """The demo, with a context that holds what coding agents say before the first word."""
    config, ports = demo_config(demo_models)
    config["budget"] = "3GiB"
    # Agents say nothing of temperature, and the demo model learned to be greedy.
    greedy = {"temperature": 0, "max_tokens": 500}
    config["profiles"]["reason"].update(context=65536, parallel=1, defaults=greedy)
    with running(config) as daemon:
        daemon.ports = ports
        yield daemon


@pytest.fixture
def cold(demo):
    """Unloads a profile, and checks in the end that one load came of what the test did."""
    watched = {}

    def port_of(profile):
        status, answer = demo.admin("POST", f"/v1/profiles/{profile}/unload")
        assert status == 200, answer
        view = demo.profile(profile)
        assert view["state"] == "unloaded"
        watched[profile] = view["loads"]
        return view["port"]

    yield port_of
    loads = {
        profile: demo.profile(profile)["loads"] - before for profile, before in watched.items()
    }
    assert loads == dict.fromkeys(watched, 1), "the first request causes the load, and the only one"


@pytest.fixture
def surroundings(short_dir):
    """Where a program runs; nothing of it is left running."""
    there = Surroundings(short_dir)
    yield there
    there.end()


@pytest.fixture(scope="package")
def lessons(tmp_path_factory):
    """What the programs ask, as a file."""
    path = tmp_path_factory.mktemp("lessons") / "lessons.json"
    prompts = {name: LESSONS[name]["prompt"] for name in ("capital", "weather", "multiply")}
    path.write_text(json.dumps({"prompts": prompts, "tools": TOOLS}))
    return path
