# ruff: noqa: E501, ISC004 - messages are compared whole
"""What a person reads when the file is wrong, to the letter."""

from pathlib import Path
from textwrap import dedent

import pytest

from llmd.config.load import parse_config
from llmd.errors import ConfigError


def complaints(text: str) -> list[str]:
    """What is wrong with *text*, one line each, without the name of the file."""
    with pytest.raises(ConfigError) as caught:
        parse_config(dedent(text), source="f", directory=Path("/etc/llmd"))
    summary, *lines = caught.value.message.splitlines()
    assert summary == f"f has {len(lines)} problem{'s' * (len(lines) != 1)}:"
    assert caught.value.remedy
    for jargon in ("pydantic", "Input", "type=", "validation error", "Traceback", "__"):
        assert jargon not in caught.value.message
    return [line.removeprefix("f:") for line in lines]


def profile(lines: str, name: str = "a") -> str:
    """A file with one profile; its own lines begin at line 5, column 5."""
    body = "\n".join(f"    {line}" for line in lines.splitlines())
    return f"profiles:\n  {name}:\n    engine: mlx\n    model: m\n{body}\n"


BAD_VALUES = [
    pytest.param("prot: 8081", ["2:3: profiles.a: `port` is missing; `prot` looks like it",
                                "5:5: profiles.a.prot: unknown key; did you mean `port`?"],
                 id="a misspelt key is named twice: as missing and as unknown"),
    pytest.param("port: 99999", ["5:11: profiles.a.port: must be at most 65535, not 99999"],
                 id="a port beyond the range"),
    pytest.param('port: "8081"', ["5:11: profiles.a.port: must be a whole number, not the text '8081'"],
                 id="a port as text"),
    pytest.param("port: true", ["5:11: profiles.a.port: must be a whole number, not true"],
                 id="a port as a switch"),
    pytest.param("port:", ["5:10: profiles.a.port: has no value; it must be a whole number"],
                 id="a port without a value"),
    pytest.param("port: 8081.5", ["5:11: profiles.a.port: must be a whole number, not 8081.5"],
                 id="half a port"),
    pytest.param("port: 8081\nctx: 4096", ["6:5: profiles.a.ctx: unknown key; did you mean `context`?"],
                 id="another program's word for the key"),
    pytest.param("port: 8081\nrunner: auto",
                 ["6:5: profiles.a.runner: is for engine llama.cpp, and this profile's is mlx"],
                 id="another engine's key"),
    pytest.param("port: 8081\npatience: 3s",
                 ["6:5: profiles.a.patience: unknown key; it belongs to the top of the file, not to a profile"],
                 id="a key of the top inside a profile"),
    pytest.param("port: 8081\nname: b",
                 ["6:5: profiles.a.name: a profile's name is its key under `profiles`; remove this line"],
                 id="a name that is written twice"),
    pytest.param("port: 8081\nmemory: 48 gigs",
                 ["6:13: profiles.a.memory: '48 gigs' is no size; write it like 48GiB or 800MB"],
                 id="a size in words"),
    pytest.param("port: 8081\nmemory: 8",
                 ["6:13: profiles.a.memory: 8 bytes is too little for a model; write the unit: 8GiB"],
                 id="a size without its unit"),
    pytest.param("port: 8081\nidle_ttl: soon",
                 ["6:15: profiles.a.idle_ttl: 'soon' is no duration; write it like 30m, 10s or 1h30m"],
                 id="a duration in words"),
    pytest.param("port: 8081\nload_timeout: never",
                 ["6:19: profiles.a.load_timeout: `never` is not possible here; give a time such as 10m"],
                 id="never where it is not possible"),
    pytest.param("port: 8081\nload_timeout: 0",
                 ["6:19: profiles.a.load_timeout: must be more than zero"], id="no time at all"),
    pytest.param("port: 8081\nstall_timeout: 500ms",
                 ["6:20: profiles.a.stall_timeout: engines are looked at every 2 s; give at least that, or `never`"],
                 id="a timeout shorter than the watchdog's round"),
    pytest.param("port: 8081\nparallel: 0",
                 ["6:15: profiles.a.parallel: must be at least 1, not 0"], id="no sequence"),
    pytest.param("port: 8081\npinned: maybe",
                 ["6:13: profiles.a.pinned: must be true or false, not the text 'maybe'"],
                 id="a switch between its positions"),
    pytest.param("port: 8081\naliases: gpt",
                 ["6:14: profiles.a.aliases: must be a list, not the text 'gpt'"], id="text for a list"),
    pytest.param("port: 8081\naliases: [ok, 'a b']",
                 ["6:19: profiles.a.aliases[1]: 'a b' cannot be a name: letters, digits and . _ : - only, at most 64"],
                 id="a name with a space"),
    pytest.param("port: 8081\nenv: {'A B': 1}",
                 ["6:11: profiles.a.env.'A B': 'A B' is no name of an environment variable"],
                 id="a variable with a space"),
    pytest.param("port: 8081\ndefaults: [1]",
                 ["6:15: profiles.a.defaults: must be a mapping of names to values, not a list"],
                 id="a list for a mapping"),
    pytest.param("port: 8081\ncontext: 100",
                 ["6:14: profiles.a.context: must be at least 256, not 100"], id="a tiny context"),
    pytest.param("port: 8081\nmodel: ''", ["6:5: profiles.a.model: is there twice; first on line 4"],
                 id="a key that is there twice"),
    pytest.param("port: 8081\nadapters: ~nobodyatall/x",
                 ["6:15: profiles.a.adapters: there is no user 'nobodyatall' to expand ~nobodyatall/x"],
                 id="the home of a stranger"),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "expected"), BAD_VALUES)
def test_a_bad_value_is_said_where_and_how(lines, expected):
    assert complaints(profile(lines)) == expected


ONE = "profiles: {a: {engine: mlx, model: m, port: 8081}}\n"
BAD_TOPS = [
    pytest.param("budget: 48 gigs", "1:9: budget: '48 gigs' is no budget; write 48GiB, 75% or auto",
                 id="a budget in words"),
    pytest.param("budget: 150%", "1:9: budget: '150%' is no share of memory; write 1% to 100%",
                 id="more than all memory"),
    pytest.param("budget: 48", "1:9: budget: 48 bytes holds no model; write the unit: 48GiB",
                 id="a budget without its unit"),
    pytest.param("budget: [1]",
                 "1:9: budget: must be a size such as 48GiB, a share such as 75%, or auto, not a list",
                 id="a list of budgets"),
    pytest.param("listen: [localhost]", "1:10: listen[0]: 'localhost' is no IP address; write 127.0.0.1",
                 id="a name to listen on"),
    pytest.param("listen: [1.2.3]",
                 "1:10: listen[0]: '1.2.3' is no IP address; write one like 127.0.0.1 or ::1",
                 id="three quarters of an address"),
    pytest.param("listen: []", "1:9: listen: must not be empty", id="nothing to listen on"),
    pytest.param("api_keys: ['']", "1:12: api_keys[0]: an empty key would let everybody in; remove it",
                 id="an empty key"),
    pytest.param("cors_origins: ['*']",
                 "1:16: cors_origins[0]: `*` would let any web page use the models; name the origins",
                 id="every origin"),
    pytest.param("cors_origins: [localhost]",
                 "1:16: cors_origins[0]: 'localhost' is no web origin; write it like http://localhost:3000",
                 id="an origin without its scheme"),
    pytest.param("allowed_hosts: ['http://a']",
                 "1:17: allowed_hosts[0]: 'http://a' is no host name; write it without scheme and port, like studio.local",
                 id="a URL for a host name"),
    pytest.param("eviction: fifo", "1:11: eviction: 'fifo' is none of cost or lru", id="an unknown policy"),
    pytest.param("evicton: lru", "1:1: evicton: unknown key; did you mean `eviction`?", id="a typo"),
    pytest.param("port: 8081", "1:1: port: unknown key; it belongs to a profile, under `profiles`",
                 id="a profile's key at the top"),
    pytest.param("zzz: 1", "known are allowed_hosts, api_keys, api_keys_file,", id="nothing comes near"),
    pytest.param("gateway: 8080", "1:10: gateway: must be a mapping of names to values, not 8080",
                 id="a gateway that is a number"),
    pytest.param("gateway: {prot: 1}", "1:11: gateway.prot: unknown key; did you mean `port`?",
                 id="a typo in the gateway"),
    pytest.param("max_body: 0", "1:11: max_body: must be at least 1, not 0", id="no room for a request"),
    pytest.param("api_keys: !!python/object:os.system [x]",
                 "1:11: api_keys: the tag !!python/object:os.system is not supported; remove it",
                 id="a tag that would run code"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "expected"), BAD_TOPS)
def test_a_bad_line_at_the_top_is_said_where_and_how(line, expected):
    (found,) = complaints(f"{line}\n{ONE}")
    assert expected in found
    assert len(found) < 400


CONTRADICTIONS = [
    pytest.param("b: {engine: mlx, model: m, port: 8080}",
                 ["4:39: profiles.b.port: 8080 is the gateway's port; choose another, or set `gateway: null`"],
                 id="the gateway's port"),
    pytest.param("b: {engine: mlx, model: m, port: 8082, aliases: [a]}",
                 ["4:55: profiles.b.aliases[0]: 'a' is the name of another profile"],
                 id="an alias that is another's name, on another port"),
    pytest.param("b: {engine: mlx, model: m, port: 8082, aliases: [x]}",
                 ["4:55: profiles.b.aliases[0]: 'x' is an alias of a already"],
                 id="an alias that is another's alias"),
    pytest.param("b: {engine: mlx, model: m, port: 8082, aliases: [b, y, y]}",
                 ["4:55: profiles.b.aliases[0]: 'b' is this profile's name or alias already",
                  "4:61: profiles.b.aliases[2]: 'y' is this profile's name or alias already"],
                 id="an alias that says nothing new"),
    pytest.param("b: {engine: mlx, model: m, port: 8081, default: true, pinned: true, preload: true}",
                 ["4:54: profiles.b.default: a has `default` on port 8081 already; a port loads one profile by default",
                  "4:68: profiles.b.pinned: a has `pinned` on port 8081 already; a port holds one profile at a time, so only one can be pinned there",
                  "4:83: profiles.b.preload: a has `preload` on port 8081 already; a port holds one profile at a time, so only one can be loaded at start"],
                 id="two that each must be the one of their port"),
    pytest.param("b: {engine: mlx, model: m, port: 8082, memory: 20GiB}",
                 ["4:53: profiles.b.memory: 20 GiB can never be loaded: the whole budget is 16 GiB"],
                 id="larger than the whole budget"),
    pytest.param("b: {engine: command, cmd: [server], port: 8082, memory: 1GiB}",
                 ["4:32: profiles.b.cmd: `{port}` is not used: llmd chooses the port that the program must "
                  'listen on, for example [my-server, --port, "{port}"]'],
                 id="a command that does not hear its port"),
    pytest.param("b: {engine: command, cmd: [server, '{port}'], port: 8082}",
                 ["4:6: profiles.b: `memory` is missing (llmd cannot estimate what a command needs)"],
                 id="a command of unknown size"),
    pytest.param("b: {engine: command, cmd: [], port: 8082, memory: 1GiB}",
                 ["4:32: profiles.b.cmd: must not be empty"], id="an empty command"),
    pytest.param("b: {engine: command, cmd: [s, '{port}'], ready: health, port: 8082, memory: 1GiB}",
                 ["4:54: profiles.b.ready: 'health' is no path; it begins with a slash, like /health"],
                 id="a path without its slash"),
    pytest.param("b: {engine: remote, url: 'http://localhost:8081/v1', port: 8082}",
                 ["4:31: profiles.b.url: port 8081 is llmd's own: requests would go in a circle"],
                 id="a remote that is this daemon"),
    pytest.param("b: {engine: remote, url: 'ftp://x', port: 8082}",
                 ["4:31: profiles.b.url: 'ftp://x' is no URL; write it like http://studio.local:8081/v1"],
                 id="a remote by another protocol"),
    pytest.param("b: {engine: llama, model: m, port: 8082}",
                 ["4:18: profiles.b.engine: 'llama' is none of mlx, llama.cpp, command or remote; did you mean llama.cpp?"],
                 id="nearly an engine"),
    pytest.param("b: {model: m, port: 8082}",
                 ["4:6: profiles.b: `engine` is missing; it is one of mlx, llama.cpp, command or remote"],
                 id="no engine"),
    pytest.param("b: mlx", ["4:9: profiles.b: must be a mapping of names to values, not the text 'mlx'"],
                 id="a profile in one word"),
    pytest.param("'b c': {engine: mlx, model: m, port: 8082}",
                 ["4:6: profiles.'b c': cannot be a profile's name: at most 64 letters, digits and . _ : -, "
                  "beginning with a letter or digit"],
                 id="a profile's name with a space"),
    pytest.param("a: {engine: mlx, model: m, port: 8082}",
                 ["4:6: profiles.a: is there twice; first on line 3"], id="two profiles of one name"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "expected"), CONTRADICTIONS)
def test_a_contradiction_is_said_where_and_how(line, expected):
    first = (
        "a: {engine: mlx, model: m, port: 8081, default: true, pinned: true, preload: true, "
        "aliases: [x]}"
    )
    assert complaints(f"budget: 16GiB\nprofiles: {{\n     {first},\n     {line}}}\n") == expected


def test_everything_wrong_is_said_at_once():
    found = complaints(
        """\
        budgte: 1GiB
        budget: lots
        profiles:
          a: {engine: mlx, model: m, port: 8080}
          b: {engine: mlx, model: m, port: 0, aliases: [c]}
          c: {engine: mlx, port: 8082, aliases: [a]}
          d: {engine: mlx, model: m, port: 8082, aliases: [b]}
        """
    )
    assert [line.split(": ")[1] for line in found] == [
        "budgte", "budget", "profiles.a.port", "profiles.b.port", "profiles.c",
        "profiles.d.aliases[0]",
    ]  # fmt: skip


def test_a_billion_laughs_are_not_laughed():
    lines = ["a0: &a0 [ha, ha, ha, ha, ha, ha, ha, ha, ha, ha]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert any("aliases make it too large" in line for line in complaints("\n".join(lines)))
