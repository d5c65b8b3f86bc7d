"""Libraries: a cold port, then everything the demo model knows, on both engines."""

import pytest

from tests.clients.running import NODE, PYTHON, need
from tests.conftest import ROOT
from tests.lessons import FRANCE, LESSONS


pytestmark = pytest.mark.clients

HERE = ROOT / "tests" / "clients"
ENGINES = [pytest.param("chat", id="mlx"), pytest.param("reason", id="llama.cpp")]
WEATHER = ["get_weather", {"city": "Paris"}]
THOUGHT = [LESSONS["multiply"]["reasoning"], LESSONS["multiply"]["answer"]]


def check(answers, **more):
    """*answers* of a program: those that all give, and what is special."""
    pieces = answers.pop("pieces")
    assert pieces > 3, "the stream came all at once"
    if "thought" in answers:  # templates put empty lines around it
        answers["thought"] = [text.strip() for text in answers["thought"]]
    assert answers == {"plain": FRANCE[1], "streamed": FRANCE[1], "tool": WEATHER, **more}


def ask(surroundings, program, *arguments):
    need(PYTHON / "python", "the environment of the Python clients")
    script = HERE / "python" / f"asks_{program}.py"
    return surroundings.run([PYTHON / "python", script, *arguments], timeout_s=90).json


@pytest.mark.parametrize("profile", ENGINES)
def test_openai_for_python(cold, surroundings, lessons, profile):
    answers = ask(surroundings, "openai", f"http://127.0.0.1:{cold(profile)}/v1", lessons)
    check(answers, thought=THOUGHT, responses=FRANCE[1], models=[profile])


@pytest.mark.parametrize("profile", ENGINES)
def test_openai_for_node(cold, surroundings, lessons, profile):
    need(NODE / "openai", "openai for Node")
    script = HERE / "node" / "asks_openai.mjs"
    url = f"http://127.0.0.1:{cold(profile)}/v1"
    answers = surroundings.run(["node", script, NODE, url, lessons], timeout_s=60).json
    check(answers, thought=THOUGHT, responses=FRANCE[1], models=[profile])


@pytest.mark.parametrize("profile", ENGINES)
def test_anthropic_for_python(cold, surroundings, lessons, profile):
    answers = ask(surroundings, "anthropic", f"http://127.0.0.1:{cold(profile)}/v1", lessons)
    assert answers.pop("counted") > 10
    check(answers, thought=THOUGHT)


@pytest.mark.parametrize("profile", ENGINES)
def test_litellm(cold, surroundings, lessons, profile):
    answers = ask(surroundings, "litellm", f"http://127.0.0.1:{cold(profile)}/v1", lessons)
    check(answers, thought=THOUGHT)


@pytest.mark.parametrize("profile", ENGINES)
def test_langchain(cold, surroundings, lessons, profile):
    check(ask(surroundings, "langchain", f"http://127.0.0.1:{cold(profile)}/v1", lessons))


@pytest.mark.parametrize("profile", ENGINES)
def test_ollama_for_python(demo, cold, surroundings, lessons, profile):
    cold(profile)
    url = f"http://127.0.0.1:{demo.ports[8080]}/v1"
    answers = ask(surroundings, "ollama", url, lessons, profile)
    models = answers.pop("models")
    assert any(name.startswith(profile) for name in models)
    check(answers, thought=THOUGHT, generated=FRANCE[1])


@pytest.mark.parametrize("profile", ENGINES)
def test_llm_command(cold, surroundings, profile):
    llm = need(PYTHON / "llm", "the llm command")
    home = surroundings.home / "llm"
    home.mkdir()
    (home / "extra-openai-models.yaml").write_text(
        f"- model_id: llmd\n  model_name: any\n  supports_tools: true\n"
        f"  api_base: http://127.0.0.1:{cold(profile)}/v1\n"
    )

    def run(*words):
        env = {"LLM_USER_PATH": str(home)}
        return surroundings.run([llm, "-m", "llmd", "-o", "temperature", "0", *words],
                                timeout_s=60, env=env).output.strip()  # fmt: skip

    tool = 'def get_weather(city: str) -> str:\n    """The current weather in a city."""\n'
    tool += f"    return {LESSONS['weather_result']['tool']!r}\n"

    assert run(FRANCE[0]) == FRANCE[1]
    assert run("--no-stream", FRANCE[0]) == FRANCE[1]
    assert run("--functions", tool, LESSONS["weather"]["prompt"]).endswith(
        LESSONS["weather_result"]["answer"]
    )
