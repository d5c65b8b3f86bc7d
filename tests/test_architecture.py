"""The rules of the layout, read off the syntax trees: who imports whom; what core never does."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT


PACKAGE = ROOT / "llmd"
FILES = sorted(PACKAGE.rglob("*.py"))

# Each folder, and the folders of llmd that it may import. `errors` is everybody's.
ALLOWED = {
    "errors": set(),
    "config": set(),
    "core": {"config"},
    "platform": set(),
    "hosts": {"platform"},
    "weights": {"core", "config"},
    "proxy": {"config", "core"},
    "engines": {"config", "core", "hosts", "proxy"},  # of hosts, the protocol; of proxy, the gate
    "runtime": {"config", "core", "engines", "hosts", "platform", "proxy", "weights"},
    "admin": {"config", "core", "platform", "runtime"},
    "hub": {"platform", "weights"},
    "cli": {"admin", "config", "core", "hub", "platform", "weights"},
    "mcp": {"admin", "config"},
    "process": {"admin", "config", "platform", "runtime"},
    "serve": {"admin", "config", "platform", "process", "runtime"},
    "__main__": {"config", "serve"},
    "__init__": set(),
}
ONLY = {
    ("engines", "hosts"): {"llmd.hosts.protocol"},
    ("engines", "proxy"): {"llmd.proxy.gate"},
    ("runtime", "hosts"): {"llmd.hosts.protocol"},
    ("admin", "platform"): {"llmd.platform.service"},
    # The service files and the machine, which `doctor` looks at also when no daemon runs.
    ("cli", "platform"): {
        "llmd.platform.service",
        "llmd.platform.definition",
        "llmd.platform.machine",
    },
    # What `models` and `fit` compute without a daemon; decisions are the daemon's alone.
    ("cli", "core"): {"llmd.core.footprint"},
}
CORE_MAY_IMPORT = {
    "collections", "contextlib", "dataclasses", "enum", "functools", "heapq", "itertools", "llmd",
    "math", "msgspec", "re", "typing",
}  # fmt: skip


def imports(path):
    """Each module that *path* imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            for alias in node.names:
                whole = PACKAGE.parent.joinpath(*module.split("."), alias.name)
                is_module = whole.with_suffix(".py").exists() or whole.is_dir()
                yield f"{module}.{alias.name}" if is_module else module


def folder(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def own_folder(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_one_way(path):
    own = own_folder(path)
    for module in imports(path):
        if not module.startswith("llmd"):
            continue
        target = folder(module)
        if target in (own, "errors", "__init__"):
            continue
        assert target in ALLOWED[own], f"{own} may not import {module}"
        only = ONLY.get((own, target))
        assert only is None or module in only, f"{own} may import only {only} of {target}"


def test_core_does_no_io_and_never_awaits():
    for path in (PACKAGE / "core").glob("*.py"):
        tree = ast.parse(path.read_text())
        for module in imports(path):
            assert module.split(".")[0] in CORE_MAY_IMPORT, f"{path.name} imports {module}"
        for node in ast.walk(tree):
            assert not isinstance(node, ast.Await | ast.AsyncFunctionDef | ast.AsyncFor), path.name
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in {"open", "print", "input"}, path.name


def test_daemon_never_imports_an_engine():
    for path in FILES:
        if own_folder(path) == "hosts":
            continue
        for module in imports(path):
            top = module.split(".")[0]
            assert top not in {"mlx", "mlx_lm", "xllamacpp", "llama_cpp"}, f"{path}: {module}"


DAEMON_MAY_IMPORT = {
    *{"llmd", "pydantic", "pydantic_core", "yaml", "uvloop", "httptools", "psutil", "structlog"},
    *{"msgspec", "aiohttp", "click"},
    # What these bring along.
    *{"aiosignal", "annotated_types", "attr", "backports", "cython_runtime", "frozenlist", "idna"},
    *{"multidict", "propcache", "typing_extensions", "typing_inspection", "yarl"},
}


def test_daemon_imports_only_what_is_listed():
    """Each package costs start-up time, and memory for as long as the daemon runs."""
    program = (
        "import sys; from llmd.__main__ import main\n"
        "try: main(['serve', '--check', '--config', '/dev/null'])\n"
        "except SystemExit: pass\n"
        "assert 'aiohttp.web' not in sys.modules, 'the ports would wait for it'\n"
        "import llmd.admin.server\n"
        "print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    names = {name.partition(".")[0] for name in done.stdout.split()}
    found = {name for name in names - sys.stdlib_module_names if not name.startswith("_")}
    assert "aiohttp" in found
    assert found - {"rich"} <= DAEMON_MAY_IMPORT
    assert not any(name.startswith("rich.") for name in done.stdout.split())
    assert not {"aiohttp.client", "aiohttp.connector"} & set(done.stdout.split())


def test_only_one_module_starts_processes():
    names = {"fork", "posix_spawn", "posix_spawnp", "system", "popen", "execv", "execve"}
    for path in FILES:
        if path.relative_to(PACKAGE) == Path("platform/spawn.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert not (node.value.id == "os" and node.attr in names), f"{path}: os.{node.attr}"
        assert not {"subprocess", "multiprocessing"} & set(imports(path)), path


def test_top_level_holds_what_the_design_names_and_nothing_else():
    named = {
        "pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "Makefile", "llmd", "launchd",
        "tests", "etc",
    }  # fmt: skip
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert found - {"build", "dist"} <= named
