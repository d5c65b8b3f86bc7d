"""Daemons as in tests/system. The numbers are those of the README, "What goes wrong elsewhere"."""

from tests.system.conftest import demo, start


__all__ = ["demo", "start"]
