"""The configuration as frozen models: what a file may say, and nothing about running it."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    WithJsonSchema,
    field_validator,
)

from llmd.config.units import (
    PLAUSIBLE_BYTES,
    ByteSize,
    ModelSize,
    PositiveSeconds,
    Seconds,
    SecondsOrNever,
    parse_size,
)


NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$"
"""What a profile may be called: it becomes part of URLs, file names and log lines."""

CONTEXT_MAX_TOKENS: Final = 2**27

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ORIGIN: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s?#@*]+", re.IGNORECASE)
_HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")


def _check_listen(value: str) -> str:
    try:
        return str(ipaddress.ip_address(value.strip("[]")))
    except ValueError:
        remedy = "write 127.0.0.1" if value == "localhost" else "write one like 127.0.0.1 or ::1"
        raise ValueError(f"{value!r} is no IP address; {remedy}") from None


def _check_origin(value: str) -> str:
    if value == "*":
        raise ValueError("`*` would let any web page use the models; name the origins")
    if not _ORIGIN.fullmatch(value):
        raise ValueError(f"{value!r} is no web origin; write it like http://localhost:3000")
    return value.lower()


def _check_host(value: str) -> str:
    if not _HOST.fullmatch(value):
        raise ValueError(
            f"{value!r} is no host name; write it without scheme and port, like studio.local"
        )
    return value.lower()


def _check_key(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if not text:
        raise ValueError("an empty key would let everybody in; remove it")
    if not is_key(text):
        raise ValueError("a key consists of printable ASCII characters without spaces")
    return value


def is_key(text: str) -> bool:
    """Whether *text* can be a key: a header must be able to carry it."""
    return bool(text) and all("!" <= letter <= "~" for letter in text)


def _check_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or re.search(r"\s", value):
        raise ValueError(f"{value!r} is no URL; write it like http://studio.local:8081/v1")
    return value


def _check_variable(value: str) -> str:
    if not _VARIABLE.fullmatch(value):
        raise ValueError(f"{value!r} is no name of an environment variable")
    return value


def _check_path(value: str) -> str:
    if not value.startswith("/") or re.search(r"\s", value):
        raise ValueError(f"{value!r} is no path; it begins with a slash, like /health")
    return value


def _check_text(value: str) -> str:
    if "\x00" in value:
        raise ValueError("contains a NUL character")
    return value


def _check_present(value: str) -> str:
    if not value.strip():
        raise ValueError("must not be empty")
    return _check_text(value)


def _check_budget(value: str | int) -> str | int:
    if isinstance(value, str):
        text = value.strip().lower()
        if text == "auto":
            return "auto"
        if text.endswith("%"):
            if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?", text[:-1].strip()) or not (
                1 <= float(text[:-1]) <= 100
            ):
                raise ValueError(f"{value!r} is no share of memory; write 1% to 100%")
            return text.replace(" ", "")
    try:
        count = parse_size(value)
    except ValueError as error:
        if isinstance(value, int):
            raise
        raise ValueError(f"{value!r} is no budget; write 48GiB, 75% or auto") from error
    if count < PLAUSIBLE_BYTES:
        raise ValueError(f"{count} bytes holds no model; write the unit: {count or 8}GiB")
    return value


Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
ProfileName = Annotated[str, Field(pattern=NAME_PATTERN)]
Count = Annotated[int, Field(strict=True)]
ListenAddress = Annotated[str, AfterValidator(_check_listen)]
WebOrigin = Annotated[str, AfterValidator(_check_origin)]
HostName = Annotated[str, AfterValidator(_check_host)]
ApiKey = Annotated[SecretStr, AfterValidator(_check_key)]
Text = Annotated[str, AfterValidator(_check_text)]
PresentText = Annotated[str, AfterValidator(_check_present)]
Variable = Annotated[str, AfterValidator(_check_variable)]
Budget = Annotated[
    Annotated[int, Field(strict=True)] | str,
    AfterValidator(_check_budget),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": PLAUSIBLE_BYTES},
                {"type": "string", "examples": ["auto", "48GiB", "75%"]},
            ]
        }
    ),
]


class Model(BaseModel):
    """Frozen, and unknown keys are refused."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), use_attribute_docstrings=False
    )


class ProfileBase(Model):
    """What every profile has, whatever its engine."""

    name: str = Field(default="", exclude=True, description="The key in `profiles`; not written.")
    port: Port = Field(description="TCP port that clients use; several profiles may share one.")
    aliases: tuple[ProfileName, ...] = Field(
        default=(), description="Further names that clients may ask for."
    )
    default: bool = Field(default=False, description="Loaded when the port is empty.")
    pinned: bool = Field(default=False, description="Never evicted, never replaced.")
    preload: bool = Field(default=False, description="Loaded at start, room permitting.")
    memory: ModelSize | None = Field(
        default=None, description="What the profile is charged, instead of an estimate."
    )
    idle_ttl: SecondsOrNever = Field(
        default=1800.0, description="Unloaded after so long without use, or `never`."
    )
    load_timeout: PositiveSeconds = Field(
        default=600.0, description="A load that takes longer has failed."
    )
    parallel: Count = Field(
        default=2, ge=1, le=256, description="Sequences generated at the same time."
    )
    defaults: dict[str, Any] = Field(
        default={}, description="Request fields used where a request has none."
    )
    force: dict[str, Any] = Field(default={}, description="Request fields that always win.")
    tool_description_limit: Count | None = Field(
        default=None,
        ge=16,
        le=100_000,
        description="Characters left of each description of a tool or parameter; for small models.",
    )
    env: dict[Variable, Text] = Field(
        default={}, description="Environment variables of the engine."
    )
    args: tuple[Text, ...] = Field(default=(), description="Further flags for the engine.")


class LocalWeights(ProfileBase):
    """A profile whose weights llmd finds on disk."""

    model: PresentText = Field(
        description="The weights: a path, or a name looked up in `models_dirs` and the HF cache."
    )
    context: Count | None = Field(
        default=None,
        ge=256,
        le=CONTEXT_MAX_TOKENS,
        description="Tokens of one sequence; default: the model's own, at most 32768.",
    )
    prompt_cache: ByteSize | None = Field(
        default=None, description="Bytes kept of earlier prompts' key-value state."
    )
    draft_model: PresentText | None = Field(
        default=None, description="Small weights that guess ahead (speculative decoding)."
    )


class MlxProfile(LocalWeights):
    """Weights in an MLX directory, run by mlx_lm."""

    engine: Literal["mlx"] = Field(description="mlx_lm: MLX weights, on Apple silicon or a CPU.")
    adapters: PresentText | None = Field(default=None, description="A directory of LoRA adapters.")


class LlamaProfile(LocalWeights):
    """A GGUF file, run by a llama.cpp server."""

    engine: Literal["llama.cpp"] = Field(description="A llama.cpp server: GGUF weights.")
    runner: Literal["auto", "llama-server", "xllamacpp", "llama-cpp-python"] = Field(
        default="auto", description="Which llama.cpp; `auto` takes the first that is installed."
    )
    projector: PresentText | None = Field(
        default=None,
        description="The file that gives it eyes or ears (mmproj): a name beside the weights, "
        "or a path.",
    )


class CommandProfile(ProfileBase):
    """Any program that serves HTTP on the port it is given."""

    engine: Literal["command"] = Field(description="A program of your own.")
    cmd: tuple[Text, ...] = Field(
        min_length=1,
        description="Program and arguments; `{port}` is replaced, and `{key}` by a random key that "
        "keeps other users of the machine out.",
    )
    ready: Annotated[str, AfterValidator(_check_path)] = Field(
        default="/health", description="A path that answers 200 once it can serve."
    )
    memory: ModelSize = Field(description="What the program is charged.")


class RemoteProfile(ProfileBase):
    """Somebody else's server; nothing runs here, nothing is charged."""

    engine: Literal["remote"] = Field(description="A server elsewhere.")
    url: Annotated[str, AfterValidator(_check_url)] = Field(
        description="Its base, with or without `/v1`."
    )
    model: PresentText | None = Field(default=None, description="The `model` it wants to hear.")
    api_key_env: Variable | None = Field(
        default=None, description="Environment variable that holds its key."
    )
    api_key_file: Path | None = Field(
        default=None, description="A file that holds its key, and that you alone can read."
    )
    parallel: Count = Field(
        default=16, ge=1, le=256, description="Requests it is sent at the same time."
    )


Profile = Annotated[
    MlxProfile | LlamaProfile | CommandProfile | RemoteProfile, Field(discriminator="engine")
]


class Gateway(Model):
    """One more port, which serves every profile by name."""

    port: Port = Field(default=8080, description="TCP port of the gateway.")


class Config(Model):
    """A whole configuration file."""

    budget: Budget = Field(
        default="auto",
        description="What all models together may use: `48GiB`, `75%` of memory, or `auto`.",
    )
    models_dirs: tuple[Path, ...] = Field(
        default_factory=lambda: (Path.home() / ".lmstudio" / "models",),
        description="Directories in which a profile's `model` is looked up, in this order.",
    )
    gateway: Gateway | None = Field(
        default=Gateway(), description="The port that serves every profile; `null` for none."
    )
    listen: tuple[ListenAddress, ...] = Field(
        default=("127.0.0.1", "::1"), min_length=1, description="Addresses the ports are bound to."
    )
    allowed_hosts: tuple[HostName, ...] = Field(
        default=(), description="Names besides localhost that a `Host` header may carry."
    )
    cors_origins: tuple[WebOrigin, ...] = Field(
        default=(), description="Web origins that may use the ports."
    )
    api_keys: tuple[ApiKey, ...] = Field(
        default=(), description="Accepted bearer tokens; with none, none is asked for."
    )
    api_keys_file: Path | None = Field(
        default=None, description="A file of further ones, one a line, that you alone can read."
    )
    api_keys_keyring: Annotated[bool, Field(strict=True)] | PresentText = Field(
        default=False,
        description="Further ones from the keychain: the entry's name, or `true` for `api_keys`.",
    )
    eviction: Literal["cost", "lru"] = Field(
        default="cost", description="Who makes room: the cheapest to bring back, or the oldest."
    )
    patience: Seconds = Field(
        default=5.0, description="A request waits so long before a busy resident is drained for it."
    )
    min_residency: Seconds = Field(
        default=10.0, description="A resident stays so long, unless it is idle."
    )
    queue_limit: Count = Field(
        default=64, ge=1, le=100_000, description="Requests that may wait for one profile."
    )
    queue_timeout: PositiveSeconds = Field(
        default=600.0, description="A request that waited so long is refused."
    )
    orphan_grace: PositiveSeconds = Field(
        default=30.0, description="Models outlive a daemon that is gone by so long."
    )
    drain_timeout: Seconds = Field(
        default=30.0, description="Given to requests in flight at `stop`."
    )
    warm_spare: bool = Field(
        default=True, description="Keep an MLX host that has imported everything waiting."
    )
    max_body: ByteSize = Field(
        default=64 * 2**20, ge=1, description="The largest request body, in bytes."
    )
    keep_awake: bool = Field(
        default=False, description="Keep the machine from sleeping while it answers requests."
    )
    watch_config: bool = Field(default=True, description="Reload when this file changes.")
    profiles: dict[ProfileName, Profile] = Field(
        min_length=1, description="The models, by the names that clients use."
    )

    @property
    def wants_key(self) -> bool:
        """Whether the ports ask for a key."""
        return bool(self.api_keys or self.api_keys_file or self.api_keys_keyring)

    @property
    def keychain_entry(self) -> str | None:
        """The entry of the keychain that holds keys; None when there is none."""
        named = self.api_keys_keyring
        return ("api_keys" if named is True else named) or None

    @field_validator("profiles")
    @classmethod
    def _name_profiles(cls, profiles: dict[str, Profile]) -> dict[str, Profile]:
        """Each profile knows its name, which in the file is its key."""
        return {key: profile.model_copy(update={"name": key}) for key, profile in profiles.items()}
