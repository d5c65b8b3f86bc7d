"""The configuration as frozen models: what a file may say, and nothing about running it."""

from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from llmd.config.units import (
    ByteSize,
    ModelSize,
    PositiveSeconds,
    Seconds,
    SecondsOrNever,
    StallSeconds,
)
from llmd.config.values import (
    ApiKey,
    Budget,
    Count,
    HostName,
    ListenAddress,
    Port,
    PresentText,
    ProfileName,
    Text,
    Url,
    UrlPath,
    Variable,
    WebOrigin,
)


CONTEXT_MAX_TOKENS: Final = 2**27

STALL_TIMEOUT_S: Final = 120.0
"""The longest that an engine is silent by its nature is one piece of a prompt: 2,048 tokens, which
a large model on a small Mac reads in half a minute. Four times that."""


class Model(BaseModel):
    """Frozen, and unknown keys are refused.

    Validators are built when first used: that of `Config` holds those of all others.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        protected_namespaces=(),
        use_attribute_docstrings=False,
        defer_build=True,
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
    stall_timeout: StallSeconds = Field(
        default=STALL_TIMEOUT_S,
        description="An engine that shows no sign of work for so long is replaced; or `never`.",
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
    ready: UrlPath = Field(
        default="/health", description="A path that answers 200 once it can serve."
    )
    memory: ModelSize = Field(description="What the program is charged.")


class RemoteProfile(ProfileBase):
    """Somebody else's server; nothing runs here, nothing is charged."""

    engine: Literal["remote"] = Field(description="A server elsewhere.")
    url: Url = Field(description="Its base, with or without `/v1`.")
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
        default=Gateway.model_construct(),
        description="The port that serves every profile; `null` for none.",
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
    saved_prompts: ByteSize = Field(
        default=8 * 2**30,
        description="Disk for the prompts of models that were unloaded, so that they need not be "
        "processed again; 0 keeps none.",
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
