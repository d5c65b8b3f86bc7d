"""Models that bring programs along: none is run unless the profile says `--trust-remote-code`."""

import json
import pickle
import shutil

import pytest

from tests.system.conftest import running
from tests.system.running import GOOD, free_ports, lay_out, request


class _Bomb:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (self.marker, "w")


def _edit(file, **fields):
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


def _program(model, marker):
    (model / "evil.py").write_text(f"open({marker!r}, 'w')\nclass Model: pass\nModelArgs = Model\n")


def custom_model(model, marker):
    _program(model, marker)
    _edit(model / "config.json", model_file="evil.py")


def custom_classes(model, marker):
    _program(model, marker)
    classes = {"AutoConfig": "evil.Model", "AutoModelForCausalLM": "evil.Model"}
    _edit(model / "config.json", auto_map=classes)
    tokenizer = {"AutoTokenizer": ["evil.Model", "evil.Model"]}
    _edit(model / "tokenizer_config.json", auto_map=tokenizer, tokenizer_class="Model")


def modules_by_name(model, marker):
    _program(model, marker)
    _edit(model / "tokenizer_config.json", tool_parser_type="..evil", chat_template_type="....evil")


def pickles(model, marker):
    for name in ("pytorch_model.bin", "model.pt", "model.pkl", "model-x.safetensors.bin"):
        (model / name).write_bytes(pickle.dumps(_Bomb(marker)))


def template_that_breaks_out(model, marker):
    attempts = (
        "cycler.__init__.__globals__.os.system('touch {0}')",
        "''.__class__.__mro__[1].__subclasses__()",
        "lipsum.__globals__['os'].popen('touch {0}').read()",
        "messages.append.__self__.__class__.__base__.__subclasses__()",
    )
    text = "".join("{{ " + each.format(marker) + " }}" for each in attempts)
    (model / "chat_template.jinja").write_text(text)


HOSTILE = (custom_model, custom_classes, modules_by_name, pickles, template_that_breaks_out)


@pytest.fixture(scope="module")
def daemon(demo_models, tmp_path_factory):
    """One profile for each hostile model; `daemon.markers` is where their programs would write."""
    models, markers = tmp_path_factory.mktemp("models"), tmp_path_factory.mktemp("markers")
    port = free_ports(1)[0]
    profiles = {}
    for spoil in HOSTILE:
        name = spoil.__name__.replace("_", "-")
        shutil.copytree(demo_models / "tiny-mlx", models / name)
        spoil(models / name, str(markers / name))
        profiles[name] = {"engine": "mlx", "model": name, "port": port}
    shutil.copytree(models / "custom-model", models / "trusted")
    custom_model(models / "trusted", str(markers / "trusted"))
    profiles["trusted"] = {**profiles["custom-model"], "model": "trusted"}
    profiles["trusted"]["args"] = ["--trust-remote-code"]
    config = lay_out(profiles, budget="2GiB", models_dirs=[str(models)], warm_spare=False)
    with running(config) as started:
        started.port, started.markers = port, markers
        yield started


@pytest.mark.parametrize("name", [spoil.__name__.replace("_", "-") for spoil in HOSTILE])
def test_nothing_that_a_model_brings_is_run(daemon, name):
    done = daemon.ctl("load", name)
    answered = request(daemon.port, body={**GOOD, "model": name, "max_tokens": 2})
    assert list(daemon.markers.iterdir()) == []
    # Either it is refused in words, or it is served without its programs.
    assert done.returncode == 0 or "Traceback" not in done.stderr
    assert answered[0] in (200, 400, 502, 503), answered


def test_program_is_run_where_the_profile_says_so(daemon):
    """And so it would be seen in the test above."""
    daemon.ctl("load", "trusted")
    (daemon.markers / "trusted").unlink()
