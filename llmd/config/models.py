"""The configuration as frozen models: what a file may say, and nothing about running it."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from llmd.config.units import ByteSize, Seconds


Port = Annotated[int, Field(ge=1, le=65535)]
ProfileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,63}$")]


class Model(BaseModel):
    """Frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ProfileBase(Model):
    """What every profile has, whatever its engine."""

    name: str = Field(default="", exclude=True, description="The key in `profiles`; not written.")
    port: Port
    aliases: tuple[ProfileName, ...] = ()
    default: bool = Field(default=False, description="Loaded when the port is empty.")
    pinned: bool = Field(default=False, description="Never evicted, never replaced.")
    preload: bool = Field(default=False, description="Loaded at start, room permitting.")
    memory: ByteSize | None = Field(default=None, description="What the profile is charged.")
    idle_ttl: Seconds = Field(default=1800.0, description="Unloaded after so long without use.")
    load_timeout: Seconds = Field(default=600.0, description="A load that takes longer failed.")
    parallel: int = Field(default=2, ge=1, le=256, description="Concurrent sequences.")
    defaults: dict[str, Any] = Field(default={}, description="Request fields used when absent.")
    force: dict[str, Any] = Field(default={}, description="Request fields that always win.")
    env: dict[str, str] = Field(default={}, description="Environment of the host.")
    args: tuple[str, ...] = Field(default=(), description="Further flags for the engine.")


class LocalWeights(ProfileBase):
    """A profile whose weights llmd finds on disk."""

    model: str = Field(description="A path, or looked up in `models_dirs` and the HF cache.")
    context: int | None = Field(
        default=None, ge=256, description="Tokens; default: the model's own, at most 32768."
    )
    prompt_cache: ByteSize | None = Field(
        default=None, description="Bytes kept of earlier prompts' key-value state."
    )
    draft_model: str | None = Field(default=None, description="Weights for speculative decoding.")


class MlxProfile(LocalWeights):
    """Weights in an MLX directory, run by mlx_lm."""

    engine: Literal["mlx"]
    adapters: str | None = Field(default=None, description="A directory of LoRA adapters.")


class LlamaProfile(LocalWeights):
    """A GGUF file, run by a llama.cpp server."""

    engine: Literal["llama.cpp"]
    runner: Literal["auto", "llama-server", "xllamacpp", "llama-cpp-python"] = "auto"


class CommandProfile(ProfileBase):
    """Any program that serves HTTP on the port it is given."""

    engine: Literal["command"]
    cmd: tuple[str, ...] = Field(
        min_length=1, description="Program and arguments; `{port}` is replaced."
    )
    ready: str = Field(default="/health", description="A path that answers 200 once it can serve.")
    memory: ByteSize


class RemoteProfile(ProfileBase):
    """Somebody else's server; nothing runs here, nothing is charged."""

    engine: Literal["remote"]
    url: str = Field(pattern=r"^https?://", description="Its base, with or without `/v1`.")
    model: str | None = Field(default=None, description="The `model` it wants to hear.")
    api_key_env: str | None = Field(default=None, description="Variable that holds its key.")
    parallel: int = Field(default=16, ge=1, le=256)


Profile = Annotated[
    MlxProfile | LlamaProfile | CommandProfile | RemoteProfile, Field(discriminator="engine")
]


class Gateway(Model):
    """One more port, which serves every profile by name."""

    port: Port = 8080


class Config(Model):
    """A whole configuration file."""

    budget: str | int = Field(
        default="auto", description="`48GiB`, `75%` of memory, or `auto`: what the machine allows."
    )
    models_dirs: tuple[Path, ...] = ()
    gateway: Gateway | None = Gateway()
    listen: tuple[str, ...] = ("127.0.0.1", "::1")
    allowed_hosts: tuple[str, ...] = Field(
        default=(), description="Names besides localhost that a `Host` header may carry."
    )
    cors_origins: tuple[str, ...] = Field(
        default=(), description="Web origins that may use the ports."
    )
    api_keys: tuple[SecretStr, ...] = Field(default=(), description="Accepted bearer tokens.")
    eviction: Literal["cost", "lru"] = "cost"
    patience: Seconds = Field(default=5.0, description="Wait before a busy resident is drained.")
    min_residency: Seconds = Field(default=10.0, description="A busy resident stays so long.")
    queue_limit: int = Field(default=64, ge=1, le=100_000)
    queue_timeout: Seconds = 600.0
    orphan_grace: Seconds = Field(default=30.0, description="Hosts outlive the daemon so long.")
    drain_timeout: Seconds = Field(default=30.0, description="Given to requests at `stop`.")
    warm_spare: bool = Field(default=True, description="Keep an MLX host imported and waiting.")
    max_body: ByteSize = 64 * 2**20
    watch_config: bool = Field(default=True, description="Reload when the file changes.")
    profiles: dict[ProfileName, Profile] = Field(min_length=1)
