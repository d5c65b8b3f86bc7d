"""aiohttp's server without its client, which would cost the daemon 4 MB and a tenth of its start.

`aiohttp/__init__.py` imports the client, and that reads all certificates of the system. The modules
of the server do not need it. They are imported below a bare package of that name, which is then
taken away: whoever imports aiohttp afterwards gets the whole of it, with the same server in it.
"""

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Final


__all__ = ["Handler", "Middleware", "web"]

_NAME: Final = "aiohttp"


def _import_server() -> tuple[ModuleType, ModuleType]:
    """`aiohttp.web` and `aiohttp.typedefs`."""
    spec = importlib.util.find_spec(_NAME)
    if _NAME not in sys.modules and spec is not None:
        bare = ModuleType(_NAME)
        bare.__path__ = list(spec.submodule_search_locations or ())
        bare.__version__ = ""  # type: ignore[attr-defined]  # it goes into a header that we replace
        sys.modules[_NAME] = bare
        try:
            return _import()
        except (AttributeError, ImportError):  # a later aiohttp: its server needs more than this
            for name in [name for name in sys.modules if name.startswith(f"{_NAME}.")]:
                del sys.modules[name]
        finally:
            del sys.modules[_NAME]
    return _import()


def _import() -> tuple[ModuleType, ModuleType]:
    return importlib.import_module(f"{_NAME}.web"), importlib.import_module(f"{_NAME}.typedefs")


if TYPE_CHECKING:
    from aiohttp import web
    from aiohttp.typedefs import Handler, Middleware
else:
    web, _typedefs = _import_server()
    Handler, Middleware = _typedefs.Handler, _typedefs.Middleware
