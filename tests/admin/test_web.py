"""aiohttp's server is imported without its client, and is the same server for whoever has both."""

import subprocess
import sys


def python(program):
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_whole_package_can_be_imported_after_the_server_alone():
    program = (
        "import sys; from llmd.admin.web import web as ours; print('aiohttp' in sys.modules)\n"
        "import aiohttp; from aiohttp import web\n"
        "print(web is ours, aiohttp.ClientSession.__name__)"
    )
    assert python(program) == ["False", "True", "ClientSession"]


def test_whole_package_that_is_there_already_is_used():
    program = (
        "import aiohttp; from aiohttp import web; from llmd.admin.web import web as ours\n"
        "print(web is ours)"
    )
    assert python(program) == ["True"]


def test_server_that_needs_the_whole_package_gets_it():
    program = (
        "import importlib, sys\n"
        "real = importlib.import_module\n"
        "def picky(name):\n"
        "    package = sys.modules.get('aiohttp')\n"
        "    if name == 'aiohttp.web' and package and not hasattr(package, '__file__'):\n"
        "        real('aiohttp.hdrs')\n"
        "        raise ImportError('aiohttp.connector, too')\n"
        "    return real(name)\n"
        "importlib.import_module = picky\n"
        "from llmd.admin.web import web; import aiohttp\n"
        "print(sys.modules['aiohttp.web'] is web, aiohttp.ClientSession.__name__)"
    )
    assert python(program) == ["True", "ClientSession"]
