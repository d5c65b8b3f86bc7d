from tests.system.conftest import demo, start


__all__ = ["demo", "start"]
