"""The lock file: it fits pyproject.toml, and says of every file what it must be. No network."""

import re
import tomllib

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK = (ROOT / "etc" / "requirements.lock").read_text()
PIN = re.compile(
    r"^(?P<name>[\w.-]+)==(?P<version>\S+)(?: ; (?P<where>.+?))? \\\n"
    r"(?P<hashes>(?:    --hash=.*\n)+)",
    re.MULTILINE,
)
PINS = [found.groupdict() for found in PIN.finditer(LOCK)]

WANTED = [
    *PROJECT["project"]["dependencies"],
    *PROJECT["project"]["optional-dependencies"]["dev"],
    *PROJECT["build-system"]["requires"],
]
PLACES = [
    {"sys_platform": system, "python_version": version, "python_full_version": f"{version}.0"}
    for system in ("linux", "darwin")
    for version in ("3.11", "3.12", "3.13", "3.14")
]


def pinned(name, place):
    """The versions of *name* that are installed at *place*: one, or none."""
    return [
        pin["version"]
        for pin in PINS
        if canonicalize_name(pin["name"]) == canonicalize_name(name)
        and (pin["where"] is None or Marker(pin["where"]).evaluate(place))
    ]


@pytest.mark.parametrize("wanted", WANTED)
def test_lock_has_what_the_project_asks_for_wherever_it_does(wanted):
    asked = Requirement(wanted)
    for place in PLACES:
        if asked.marker is None or asked.marker.evaluate(place):
            versions = pinned(asked.name, place)
            assert len(versions) == 1, f"{asked.name}: `make lock` renews the lock file"
            assert asked.specifier.contains(versions[0], prereleases=True), "`make lock` renews it"


def test_every_package_is_pinned_with_hashes_and_nothing_comes_from_anywhere_else():
    lines = [line for line in LOCK.splitlines() if line and not line.lstrip().startswith("#")]
    hashes = [text for pin in PINS for text in pin["hashes"].split() if text != "\\"]
    assert len([line for line in lines if not line.startswith(" ")]) == len(PINS) > 50
    assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", text) for text in hashes)
    assert len(lines) == len(PINS) + len(hashes)
    assert "://" not in LOCK
