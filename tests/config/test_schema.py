import json
from pathlib import Path

import pytest

from llmd.config.load import example_text, json_schema, load_config, parse_config
from llmd.config.models import Config, Gateway
from llmd.config.wording import ENGINES


EXAMPLE = Path(__file__).parents[2] / "etc" / "llmd.yaml"


def test_the_example_is_the_one_in_the_source_tree():
    assert example_text() == EXAMPLE.read_text()


def test_the_example_loads_on_a_machine_without_its_weights():
    config = load_config(EXAMPLE)
    ports = {name: profile.port for name, profile in config.profiles.items()}
    assert ports == {"code": 8081, "code6": 8081, "chat": 8082, "raw": 8083, "reason": 8084}
    assert config.budget == "auto"


def test_what_the_example_shows_as_a_comment_is_right_too():
    text = example_text()
    for name in ("lab", "big"):
        text = text.replace(f"  # {name}:", f"  {name}:")
    lines = [
        line.replace("  #   ", "    ", 1) if line.startswith("  #   ") else line
        for line in text.splitlines()
    ]
    profiles = parse_config("\n".join(lines), source="f", directory=Path("/")).profiles
    assert {"lab", "big"} <= profiles.keys()


@pytest.mark.parametrize("model", [Config, Gateway, *ENGINES.values()])
def test_every_key_is_described(model):
    assert [name for name, field in model.model_fields.items() if not field.description] == []


def test_the_schema_is_json_and_allows_sizes_as_text():
    schema = json.loads(json.dumps(json_schema()))
    profile = schema["$defs"]["MlxProfile"]
    kinds = [option["type"] for option in profile["properties"]["memory"]["anyOf"][0]["anyOf"]]
    assert kinds == ["integer", "string"]
    assert "name" not in profile["properties"]
    assert profile["properties"]["port"]["maximum"] == 65535
    assert profile["properties"]["idle_ttl"]["anyOf"][1]["examples"] == ["30m", "never"]
    assert profile["additionalProperties"] is False


def test_a_config_written_as_json_reads_back_the_same():
    config = load_config(EXAMPLE)
    assert Config.model_validate(json.loads(config.model_dump_json())) == config


def test_keys_never_show():
    config = Config(api_keys=["s3cret"], profiles={"a": {"engine": "mlx", "model": "m", "port": 1}})
    assert "s3cret" not in config.model_dump_json() + repr(config)
