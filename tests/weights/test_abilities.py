"""What chat templates give away."""

import json

import pytest

from llmd.weights.abilities import abilities_in
from llmd.weights.mlx_shape import _template
from llmd.weights.shape import read_shape


@pytest.mark.parametrize(
    ("template", "abilities"),
    [
        ("{% for m in messages %}{{ m.content }}{% endfor %}", ()),
        ("{% if tools %}{{ tools | tojson }}{% endif %}", ("tools",)),
        ("{{ '<think>\n' }}", ("reasoning",)),
        ("{% if tools %}{% endif %}{% if enable_thinking %}{% endif %}", ("tools", "reasoning")),
        ("{{ '<|channel|>analysis' }}", ("reasoning",)),
        ("a plumber's toolset", ()),
        ("", ()),
    ],
)
def test_template_shows_what_it_has_words_for(template, abilities):
    assert abilities_in(template) == abilities


@pytest.mark.parametrize(("name", "engine"), [("tiny-mlx", "mlx"), ("tiny-f16.gguf", "llama.cpp")])
def test_demo_model_takes_tools_and_reasons_in_either_format(demo_models, name, engine):
    shape = read_shape(demo_models / name, engine)
    assert shape.chat_template
    assert shape.abilities == ("tools", "reasoning")


@pytest.mark.parametrize(
    ("file", "content", "text"),
    [
        ("chat_template.jinja", "{{ tools }}", "{{ tools }}"),
        ("chat_template.json", json.dumps({"chat_template": "{{ tools }}"}), "{{ tools }}"),
        ("tokenizer_config.json", json.dumps({"chat_template": "{{ x }}"}), "{{ x }}"),
        (
            "tokenizer_config.json",
            json.dumps({"chat_template": [{"name": "tool_use", "template": "t"}]}),
            '[{"name": "tool_use", "template": "t"}]',
        ),
        ("tokenizer_config.json", "{}", ""),
        ("tokenizer_config.json", "{broken", ""),
        ("config.json", "{}", ""),
    ],
)
def test_template_is_found_wherever_it_is(tmp_path, file, content, text):
    (tmp_path / file).write_text(content)
    assert _template(tmp_path) == text
