"""What `llmd-ctl query` asks about: files, pictures, templates; and what it refuses to read."""

import base64
import json
import os
import subprocess

import pytest

from llmd.cli import question
from tests.cli.conftest import COMMAND
from tests.cli.test_query import port


__all__ = ["port"]

PNG = b"\x89PNG\r\n\x1a\n rest"


def asked(port):
    return port.requests.get(timeout=10)[1]


def test_files_are_named_in_the_prompt_and_fenced_safely(ctl, port, tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "b.md").write_bytes(b"\xef\xbb\xbf```\r\ncode\r\n```")
    done = ctl(
        *("query", "-p", "code", "What", "is this?"),
        *("-f", str(tmp_path / "a.py"), "-f", str(tmp_path / "b.md")),
        stdin="piped",
    )
    assert done.returncode == 0, done.stderr
    assert asked(port)["messages"][-1]["content"] == (
        f"What is this?\n\n{tmp_path}/a.py:\n```\nx = 1\n```\n\n"
        f"{tmp_path}/b.md:\n````\n```\ncode\n```\n````\n\npiped"
    )


@pytest.mark.parametrize(
    ("name", "kind", "data"),
    [
        pytest.param("a.png", "image/png", PNG, id="png"),
        pytest.param("a", "image/jpeg", b"\xff\xd8\xff\xe0", id="jpeg"),
        pytest.param("a.jpg", "image/webp", b"RIFF0000WEBPVP8 ", id="the content counts"),
    ],
)
def test_picture_goes_along_as_data(ctl, port, tmp_path, name, kind, data):
    (tmp_path / name).write_bytes(data)
    done = ctl("query", "-p", "code", "Who?", "--image", str(tmp_path / name))
    assert done.returncode == 0, done.stderr
    text, picture = asked(port)["messages"][-1]["content"]
    assert text == {"type": "text", "text": "Who?"}
    url = f"data:{kind};base64,{base64.b64encode(data).decode()}"
    assert picture == {"type": "image_url", "image_url": {"url": url}}


@pytest.mark.parametrize(
    ("code", "stderr"),
    [
        pytest.param(
            "engine_error", "code did not take the picture: no eyes; ask a", id="its kind"
        ),
        pytest.param("budget_exceeded", "no eyes\n", id="any other reason"),
    ],
)
def test_engine_that_refuses_a_picture_is_told_of(ctl, port, tmp_path, code, stderr):
    (tmp_path / "a.png").write_bytes(PNG)
    error = {"error": {"message": "no eyes", "code": code}}
    port.answer = b"HTTP/1.1 500 No\r\n\r\n" + json.dumps(error).encode()
    done = ctl("query", "-p", "code", "Who?", "--image", str(tmp_path / "a.png"))
    assert done.returncode == 1
    assert done.stderr.startswith(f"llmd-ctl: {stderr}")


@pytest.mark.parametrize(
    ("option", "data", "message"),
    [
        pytest.param("-f", b"a\0b", "is no UTF-8 text", id="binary"),
        pytest.param("-f", b"\xff\xfe", "is no UTF-8 text", id="another encoding"),
        pytest.param("-f", None, "cannot be read: No such file", id="no file"),
        pytest.param("--image", b"GIF", "is no PNG, JPEG, GIF or WebP picture", id="no picture"),
        pytest.param("--image", None, "cannot be read: No such file", id="no picture file"),
    ],
)
def test_what_cannot_be_read_is_one_line_and_asks_nobody(ctl, tmp_path, option, data, message):
    if data is not None:
        (tmp_path / "a").write_bytes(data)
    done = ctl("query", "-p", "code", option, str(tmp_path / "a"), "hi")
    assert done.returncode == 1
    assert done.stderr.startswith(f"llmd-ctl: {tmp_path}/a {message}")
    assert len(done.stderr.splitlines()) == 1


def test_too_much_is_refused_before_it_is_read(monkeypatch, tmp_path):
    monkeypatch.setattr(question, "TEXT_MAX_BYTES", 10)
    monkeypatch.setattr(question, "IMAGE_MAX_BYTES", 10)
    (tmp_path / "a").write_bytes(PNG)
    with pytest.raises(question.InputError, match="is more than 10 B"):
        question.read_file(tmp_path / "a")
    with pytest.raises(question.InputError, match="is larger than 10 B"):
        question.read_image(tmp_path / "a")


def test_binary_pipe_is_one_line(environment, tmp_path):
    (tmp_path / "a").write_bytes(b"\xff\x00")
    with (tmp_path / "a").open("rb") as stdin:
        done = subprocess.run(
            [*COMMAND, "query", "-p", "code"],
            stdin=stdin, env=environment, capture_output=True, text=True, check=False, timeout=20,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("llmd-ctl: what is piped in is no UTF-8 text; ")


def test_template_says_system_prompt_and_limits_and_options_win(ctl, port):
    done = ctl("query", "-p", "code", "-t", "commit-message", "--max-tokens", "7", stdin="the diff")
    assert done.returncode == 0, done.stderr
    body = asked(port)
    assert body["messages"][0]["content"].startswith("You write commit messages.")
    assert "in English." in body["messages"][1]["content"]
    assert body["messages"][1]["content"].endswith("the diff")
    assert (body["max_tokens"], body["temperature"]) == (7, 0.2)


def test_variables_and_a_system_prompt_of_ones_own(ctl, port):
    done = ctl(
        *("query", "-p", "code", "-t", "explain", "--var", "reader=a child"),
        *("--system", "Be kind.", "the sky"),
    )
    assert done.returncode == 0, done.stderr
    system, user = asked(port)["messages"]
    assert system["content"] == "Be kind."
    assert user["content"].startswith("Explain the following to a child.")


def test_users_template_chooses_the_profile(ctl, port, tmp_path):
    folder = tmp_path / "llmd" / "templates"
    folder.mkdir(parents=True)
    (folder / "mine.yaml").write_text("prompt: Do it.\nprofile: coder\n")
    home = {"XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)}
    if os.uname().sysname == "Darwin":
        pytest.skip("it is below Library there")
    done = ctl("query", "-t", "mine", **home)
    assert done.returncode == 0, done.stderr
    body = asked(port)
    assert (body["model"], body["messages"][0]["content"]) == ("code", "Do it.")
