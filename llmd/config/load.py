"""From the file to a `Config`, or to one error that lists everything wrong with it."""

import functools
import os
from importlib import resources
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from llmd.config import yamlfile
from llmd.config.checks import cross_check
from llmd.config.models import Config
from llmd.config.wording import place_and_text
from llmd.config.yamlfile import Document, Problem, read_yaml
from llmd.errors import ConfigError


_TEXTUAL: Final[tuple[yamlfile.Path, ...]] = (
    *((key,) for key in ("api_keys", "allowed_hosts", "cors_origins", "listen", "models_dirs")),
    *(
        ("profiles", "*", key)
        for key in ("aliases", "args", "cmd", "env", "model", "draft_model", "adapters")
    ),
)
"""Where a bare `8` or `true` is text: an argument, a variable's value, a name."""

_EXTENSION: Final = "x-"
"""Top-level keys that begin so are the reader's own: a place for anchors."""

_SHOWN_MAX: Final = 40
"""Problems listed at once; a file with more is some other file."""


def load_config(path: Path) -> Config:
    """Read, check and complete the configuration at *path*.

    Paths in the result are absolute: relative ones are taken from the file's directory, `~` is
    expanded. Whether weights exist is not looked at; a profile may wait for its download.

    Raises:
        ConfigError: It cannot be read, or something in it is wrong. The first line of the message
            counts the problems, each further line is one: `file:line:column: path: what`.
    """
    path = path.absolute()
    return parse_config(read_text(path), source=str(path), directory=path.parent)


def parse_config(text: str, *, source: str, directory: Path) -> Config:
    """The configuration in *text*, which came from *source* and is relative to *directory*.

    Raises:
        ConfigError: See `load_config`.
    """
    document = read_yaml(text, as_written=_TEXTUAL)
    config = None
    if not document.problems or isinstance(document.data, dict):
        config = _build(document, directory)
    if document.problems or config is None:
        raise _refusal(source, document.problems)
    return config


def read_text(path: Path) -> str:
    """What is in the file at *path*, not looked at any further.

    Raises:
        ConfigError: It cannot be read, is no text, or too large.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(yamlfile.FILE_MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no configuration at {path}",
            remedy="write a commented example there with `llmd-ctl config init`",
        ) from error
    except IsADirectoryError as error:
        raise ConfigError(
            f"{path} is a directory", remedy=f"name the file in it: {path / 'llmd.yaml'}"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror}",
            remedy=f"look at its owner and mode with `ls -l {path}`",
        ) from error
    if len(raw) > yamlfile.FILE_MAX_BYTES:
        raise ConfigError(
            f"{path} is no configuration: it is larger than {yamlfile.FILE_MAX_BYTES // 1024} KiB",
            remedy="check the path given with --config or LLMD_CONFIG",
        )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            f"{path}:{line}: is not UTF-8 text (byte 0x{raw[error.start]:02x})",
            remedy="save the file as UTF-8",
        ) from error


def example_text() -> str:
    """The commented example: inside an installed package, or `etc/llmd.yaml` of the source tree.

    Raises:
        ConfigError: The installation lacks it.
    """
    packaged = resources.files("llmd.config") / "example.yaml"
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    source = Path(__file__).parents[2] / "etc" / "llmd.yaml"
    try:
        return source.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"the example configuration is missing from this installation: {source}",
            remedy="install llmd again",
        ) from error


def json_schema() -> dict[str, Any]:
    """JSON Schema of the file, for editors; sizes and durations may be text."""
    schema = Config.model_json_schema()
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "llmd configuration"
    schema["patternProperties"] = {f"^{_EXTENSION}": {"description": "Ignored; room for anchors."}}
    for definition in schema["$defs"].values():
        definition.get("properties", {}).pop("name", None)
    return schema


def _build(document: Document, directory: Path) -> Config | None:
    """Validate the data; what is wrong is added to the document's problems."""
    data = document.data
    if data is None:
        document.problems.append(Problem(0, 0, "", "is empty: it describes no model"))
        return None
    if not isinstance(data, dict):
        kind = "a list" if isinstance(data, list) else "plain text"
        document.report((), f"is {kind}; a configuration is a mapping with the key `profiles`")
        return None
    data = {key: value for key, value in data.items() if not key.startswith(_EXTENSION)}
    _refuse_names(data, document)
    _make_absolute(data, directory, document)
    try:
        config: Config | None = _model().model_validate(data)
    except ValidationError as error:
        details = error.errors(include_url=False)
        faulty = {detail["loc"][:-1] for detail in details}
        unread = {problem.path for problem in document.problems}
        for detail in details:
            if detail["type"] == "too_short" and detail["loc"] in faulty:
                continue  # it is only short of the items that are reported themselves
            path, text, key = place_and_text(detail, data)
            if detail["input"] is None and yamlfile.dotted(path) in unread:
                continue  # it has no value because of what is reported already
            document.report(path, text, key=key)
        config = _salvage(data, error)
    if config is not None:
        cross_check(config, document)
    return config


@functools.cache
def _model() -> type[Config]:
    """`Config` with its validators, which are built without pydantic's plugins.

    Looking for some, pydantic would read the metadata of every package that is installed.
    """
    switch = "PYDANTIC_DISABLE_PLUGINS"
    before = os.environ.get(switch)
    os.environ[switch] = "__all__"
    try:
        Config.model_rebuild()
    finally:
        del os.environ[switch]  # engines inherit what is there
        if before is not None:
            os.environ[switch] = before
    return Config


def _refuse_names(data: dict[str, Any], document: Document) -> None:
    """A profile has a field `name`, but it is not for the file to fill."""
    profiles = data.get("profiles")
    for key, profile in profiles.items() if isinstance(profiles, dict) else ():
        if isinstance(profile, dict) and "name" in profile:
            del profile["name"]
            text = "a profile's name is its key under `profiles`; remove this line"
            document.report(("profiles", key, "name"), text, key=True)


def _salvage(data: dict[str, Any], error: ValidationError) -> Config | None:
    """What remains without the faulty parts, so that the rest can be cross-checked as well."""
    rest = dict(data)
    profiles = rest.get("profiles")
    if isinstance(profiles, dict):
        profiles = rest["profiles"] = dict(profiles)
    for detail in error.errors(include_url=False):
        top, *below = detail["loc"] or ("profiles",)
        if top != "profiles" or not below:
            rest.pop(str(top), None)
        elif isinstance(profiles, dict):
            profiles.pop(below[0], None)
    try:
        return _model().model_validate(rest)
    except ValidationError:
        return None


def _make_absolute(data: dict[str, Any], directory: Path, document: Document) -> None:
    """Expand `~` and relative paths in place. Names to look up are left alone."""

    def absolute(value: Any, path: yamlfile.Path, *, always: bool) -> Any:
        if not isinstance(value, str) or not value:
            return value
        relative = value in {".", ".."} or value.startswith(("./", "../"))
        if not (always or relative or value.startswith(("/", "~"))):
            return value
        try:
            return str(directory / Path(value).expanduser())
        except RuntimeError:
            document.report(path, f"there is no user {value.split('/')[0][1:]!r} to expand {value}")
            return value

    directories = data.get("models_dirs")
    if isinstance(directories, list):
        data["models_dirs"] = [
            absolute(value, ("models_dirs", index), always=True)
            for index, value in enumerate(directories)
        ]
    if "api_keys_file" in data:
        data["api_keys_file"] = absolute(data["api_keys_file"], ("api_keys_file",), always=True)
    profiles = data.get("profiles")
    for name, profile in profiles.items() if isinstance(profiles, dict) else ():
        if isinstance(profile, dict) and "api_key_file" in profile:
            path = ("profiles", name, "api_key_file")
            profile["api_key_file"] = absolute(profile["api_key_file"], path, always=True)
        if isinstance(profile, dict) and profile.get("engine") != "remote":
            for key in {"model", "draft_model", "adapters"} & profile.keys():
                profile[key] = absolute(
                    profile[key], ("profiles", name, key), always=key == "adapters"
                )


def _refusal(source: str, problems: list[Problem]) -> ConfigError:
    listed = sorted(set(problems))
    lines = [problem.describe(source) for problem in listed[:_SHOWN_MAX]]
    if len(listed) > _SHOWN_MAX:
        lines.append(f"… and {len(listed) - _SHOWN_MAX} more")
    count = "1 problem" if len(listed) == 1 else f"{len(listed)} problems"
    return ConfigError(
        "\n".join([f"{source} has {count}:", *lines]),
        remedy="correct the file, then look again with `llmd-ctl config check`",
        param=listed[0].path or None if listed else None,
    )
