"""Templates: found, filled in, and refused with the nearest right name."""

import json
import tomllib

import pytest

from llmd.cli import templates
from llmd.cli.templates import Template, TemplateError, fill, find_template, list_templates
from tests.conftest import ROOT


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The user's directory of templates."""
    monkeypatch.setattr(templates, "config_dir", lambda: tmp_path)
    (tmp_path / "templates").mkdir()
    return tmp_path / "templates"


def write(directory, name, text):
    (directory / f"{name}.yaml").write_text(text)


@pytest.mark.usefixtures("own")
def test_shipped_templates_can_be_used():
    listed = {one.name: one for one in list_templates()}
    assert set(listed) == {"commit-message", "condense", "explain", "review"}
    for name, one in listed.items():
        assert one.error is None
        assert one.description
        filled = fill(name, find_template(name), {}, "THE INPUT")
        assert "THE INPUT" in filled.prompt
        assert "{{" not in filled.prompt + (filled.system or "")
    assert find_template("condense").in_pieces


def test_wheel_brings_the_templates_where_they_are_looked_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    included = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included["etc/templates"] == "llmd/cli/shipped_templates"
    assert included["etc/templates"].removeprefix("llmd/cli/") == templates.PACKAGED


def test_users_template_hides_the_shipped_one(own):
    write(own, "review", "prompt: mine\nprofile: code\n")
    assert find_template("review") == Template(prompt="mine", profile="code")


def test_broken_template_is_listed_beside_the_others(own):
    write(own, "mine", "promt: x\n")
    listed = {one.name: one for one in list_templates()}
    assert len(listed) == 5
    assert "promt: is no key of a template; did you mean prompt?" in listed["mine"].error


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize("name", ["revue", "../review", "/etc/passwd", "nothing-like-it"])
def test_unknown_template_names_what_there_is(name):
    with pytest.raises(TemplateError) as caught:
        find_template(name)
    assert "templates: commit-message, condense, explain, review" in caught.value.remedy
    assert ("did you mean review?" in caught.value.remedy) == (name in {"revue", "../review"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("prompt: [1]", "prompt: Expected `str`, got `array`", id="no text"),
        pytest.param("system: x", "missing required field `prompt`", id="no prompt"),
        pytest.param("- x", "is no mapping with the key `prompt`", id="a list"),
        pytest.param("", "is no mapping", id="nothing"),
        pytest.param("prompt: x\nmax_tokens: 0", "max_tokens: must be at least 1", id="no tokens"),
        pytest.param("prompt: x\nmax_tokens: many", "max_tokens: Expected `int", id="no number"),
        pytest.param("prompt: x\ntemperature: -1", "must not be negative", id="frozen"),
        pytest.param(
            "prompt: '{{lang}}'\ndefaults: {lnag: C}", "did you mean lang?", id="default of nothing"
        ),
        pytest.param("prompt: !!python/object/apply:os.system [x]", "tag", id="a tag"),
        pytest.param("prompt: {", "is not valid YAML", id="no YAML"),
    ],
)
def test_mistake_in_a_template_is_named_with_its_place(own, text, message):
    write(own, "t", text)
    with pytest.raises(TemplateError) as caught:
        find_template("t")
    assert message in caught.value.message
    assert str(own / "t.yaml") in caught.value.message


def test_values_are_text_as_written_and_replaced_once(own):
    write(own, "t", "prompt: '{{a}} {{ b }} {{input}}'\nsystem: 'S {{a}}'\ndefaults: {b: 010}\n")
    filled = fill("t", find_template("t"), {"a": "{{b}} {{input}}"}, "{{a}}")
    assert filled.prompt == "{{b}} {{input}} 010 {{a}}"
    assert filled.system == "S {{b}} {{input}}"


def test_input_goes_below_a_prompt_that_does_not_place_it():
    assert fill("t", Template(prompt="Do it."), {}, "x").prompt == "Do it.\n\nx"
    assert fill("t", Template(prompt="Do it."), {}, "").prompt == "Do it."


@pytest.mark.parametrize(
    ("values", "text", "message", "remedy"),
    [
        pytest.param({}, "x", "wants a value more", "--var lang=", id="missing"),
        pytest.param({"lan": "C"}, "x", "no variable 'lan'", "did you mean lang?", id="unknown"),
        pytest.param({"input": "C"}, "x", "no variable 'input'", "it has: lang", id="reserved"),
        pytest.param({"lang": "C"}, "", "wants something to work on", "-f", id="no input"),
    ],
)
def test_wrong_use_of_a_template_says_what_is_right(values, text, message, remedy):
    with pytest.raises(TemplateError) as caught:
        fill("t", Template(prompt="{{lang}} {{input}}"), values, text)
    assert message in caught.value.message
    assert remedy in caught.value.remedy


def test_templates_are_listed_without_a_daemon(ctl):
    done = ctl("query", "--templates")
    assert done.returncode == 0
    assert "condense" in done.stdout
    assert "language='the language of the transcript'" in done.stdout
    listed = json.loads(ctl("query", "--templates", "--json").stdout)["templates"]
    assert [one["name"] for one in listed] == ["commit-message", "condense", "explain", "review"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(["-t", "x"], "no template is called 'x'", id="no such template"),
        pytest.param(["--var", "a=b"], "--var is for a --template", id="a variable of nothing"),
        pytest.param(["-t", "review", "--var", "a"], "'a' is not key=value", id="no value"),
    ],
)
def test_wrong_template_is_one_line_and_asks_nobody(ctl, options, message):
    done = ctl("query", *options, "hi")
    assert done.returncode in {1, 2}
    assert message in done.stderr
    assert "Traceback" not in done.stderr
