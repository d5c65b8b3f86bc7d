"""The LaunchAgent's file: as it was agreed on, right by launchd's rules, and readable again."""

import plistlib
import re
import xml.parsers.expat
from dataclasses import replace
from pathlib import Path

import pytest

from llmd.platform.definition import ServiceError
from llmd.platform.launchd import (
    LABEL,
    loads_in_background,
    plist_path,
    read_back,
    render,
)
from llmd.platform.launchd_schema import problems_with
from tests.conftest import ROOT
from tests.platform.definitions import GOLDEN, MAC


TEMPLATE = ROOT / "launchd" / "dev.llmd.plist"


def rendered(definition=MAC, **options):
    return plistlib.loads(render(definition, **options).encode())


def test_rendered_agent_is_the_golden_one():
    assert render(MAC) == (GOLDEN / "dev.llmd.plist").read_text()


def test_file_is_named_for_the_label():
    assert plist_path(Path("/Users/ada")).name == f"{rendered()['Label']}.plist"
    assert TEMPLATE.name == f"{LABEL}.plist"


def test_nothing_of_the_template_is_left_over():
    assert re.findall("@[A-Z_]+@", render(MAC)) == []
    assert "<!--" not in render(MAC)


def test_every_key_of_the_template_has_its_reason():
    """A comment stands before each key, or before the first of a few that belong together."""
    together = {"StandardErrorPath", "SockPathName", "SuccessfulExit", "NumberOfFiles"}
    unexplained, explained = [], False
    parser = xml.parsers.expat.ParserCreate()
    element = []

    def comment(_text):
        nonlocal explained
        explained = True

    def text(found):
        nonlocal explained
        if element[-1:] == ["key"]:
            if not explained and found not in together:
                unexplained.append(found)
            explained = False

    parser.CommentHandler = comment
    parser.CharacterDataHandler = text
    parser.StartElementHandler = lambda name, _: element.append(name)
    parser.EndElementHandler = lambda _: element.pop()
    with TEMPLATE.open("rb") as file:
        parser.ParseFile(file)
    assert unexplained == []


def test_each_port_has_a_socket_for_each_address():
    sockets = rendered(replace(MAC, ports=(8081, 9000), addresses=("127.0.0.1", "::1")))["Sockets"]
    assert list(sockets) == ["port-8081", "port-9000", "admin"]
    assert sockets["port-9000"] == [
        {"SockNodeName": "127.0.0.1", "SockServiceName": "9000", "SockFamily": "IPv4"},
        {"SockNodeName": "::1", "SockServiceName": "9000", "SockFamily": "IPv6"},
    ]


@pytest.mark.parametrize("directory", ["/tmp/llmd-501", "/private/tmp/x", "/var/folders/ab/c/T"])
def test_admin_socket_that_a_reboot_removes_is_left_to_the_daemon(directory):
    socket = Path(directory) / "llmd.sock"
    document = rendered(replace(MAC, socket=socket))
    assert "admin" not in document["Sockets"]
    assert document["ProgramArguments"][-1] == str(socket)


def test_agent_for_a_user_without_a_login_loads_there_too():
    assert rendered(background=True)["LimitLoadToSessionType"] == ["Aqua", "Background"]
    assert loads_in_background(render(MAC, background=True))
    assert not loads_in_background(render(MAC))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("A & B <llmd>]]>", id="what XML would take for itself"),
        pytest.param("@PORT@ @SOCKET@", id="what the template would take for itself"),
        pytest.param("Ünïcödé ☃ 'quoted' \"twice\"", id="other scripts and quotes"),
        pytest.param("com~apple~CloudDocs 100%", id="tilde and percent"),
    ],
)
def test_odd_path_arrives_as_it_is(name):
    odd = replace(MAC, config_file=Path("/Users/ada") / name / "llmd.yaml")
    assert rendered(odd)["ProgramArguments"][5] == str(odd.config_file)
    assert read_back(render(odd)) == odd


@pytest.mark.parametrize("definition", [MAC, replace(MAC, ports=(1,), addresses=("::",))])
def test_agent_is_read_back_as_what_it_was_rendered_from(definition):
    assert read_back(render(definition)) == definition
    assert read_back(render(definition, background=True)) == definition


@pytest.mark.parametrize("text", ["", "<plist>", "not XML", "<plist><array/></plist>", "\x00"])
def test_foreign_file_is_not_read(text):
    assert read_back(text) is None
    dictionary = plistlib.dumps({"Label": "dev.llmd", "ProgramArguments": []}).decode()
    assert read_back(dictionary) is None


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param({"python": Path("venv/bin/python")}, id="relative program"),
        pytest.param({"state_dir": Path("/Users/$USER/llmd")}, id="a variable"),
        pytest.param({"config_file": Path("/Users/ada/\x07")}, id="a control character"),
        pytest.param({"variables": (("HF_HOME", ""),)}, id="an empty variable"),
        pytest.param({"socket": Path("/" + "s" * 103)}, id="a socket path that does not fit"),
    ],
)
def test_what_launchd_would_refuse_is_not_rendered(broken):
    with pytest.raises(ServiceError, match="launchd would refuse"):
        render(replace(MAC, **broken))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"Label": "dev.other"}, "Label is 'dev.other' in a file called dev.llmd.plist"),
        ({"KeepAlive": True}, "KeepAlive: True is none of"),
        ({"KeepAlive": {"SuccessfulExit": 0}}, "KeepAlive: .* is none of"),
        ({"ExitTimeOut": 0}, "ExitTimeOut: 0 is not in 1 to 60"),
        ({"ExitTimeOut": 61}, "ExitTimeOut: 61 is not in 1 to 60"),
        ({"ExitTimeOut": True}, "ExitTimeOut: True"),
        ({"ProcessType": "Adaptive"}, "ProcessType: 'Adaptive' is none of"),
        ({"Umask": 77}, "Umask: 77"),
        ({"RunAtLoad": "true"}, "RunAtLoad: 'true' is neither"),
        ({"EnvironmentVariables": {"PATH": "/bin", "A": 1}}, "EnvironmentVariables: A: 1 is no"),
        ({"EnvironmentVariables": {"PATH": "/bin:~/bin"}}, "PATH: '~/bin' is no absolute path"),
        ({"WorkingDirectory": "~/llmd"}, "WorkingDirectory: '~/llmd' is no absolute path"),
        ({"ProgramArguments": ["python"]}, "ProgramArguments: 'python' is no absolute path"),
        ({"ProgramArguments": ["/bin/x", 1]}, "ProgramArguments: 1 is no text"),
        ({"ProgramArguments": []}, "ProgramArguments: .* empty"),
        ({"SoftResourceLimits": {"ResidentSetSize": 1}}, "ResidentSetSize: is no key"),
        ({"EnableTransactions": True}, "EnableTransactions: is no key"),
        ({"UserName": "ada"}, "UserName: is no key"),
        ({"Sockets": {"admin": {"SockPathName": "/s", "SockPathMode": 600}}}, "SockPathMode: 600"),
        ({"Sockets": {"port-1": [{"SockNodeName": "::1"}]}}, "SockServiceName is missing"),
    ],
)
def test_schema_refuses(change, problem):
    [found] = problems_with(rendered() | change, stem=LABEL)
    assert re.search(problem, found)


def test_schema_misses_no_key():
    for key in rendered():
        document = rendered()
        del document[key]
        assert any(key in problem for problem in problems_with(document, stem=LABEL))
