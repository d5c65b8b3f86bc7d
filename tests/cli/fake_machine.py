"""A machine on which all is well, until a test says otherwise."""

from dataclasses import dataclass, field
from typing import Any

from llmd.cli.model_checks import LLAMA_SERVER_KNOWS
from llmd.platform.slowness import Power


GIB = 2**30


@dataclass
class FakeMachine:
    """Answers what its fields say."""

    total: int = 64 * GIB
    gpu_limit: int | None = None
    short: str | None = None
    swaps: float = 0.0
    translated: bool = False
    held_back: Power = field(default_factory=Power)
    nice: int = 0
    who: dict[int, tuple[str, int]] = field(default_factory=dict)
    taken: set[int] = field(default_factory=set)
    unreadable: dict[str, str] = field(default_factory=dict)
    free: int = 100 * GIB
    packages: dict[str, str] = field(
        default_factory=lambda: {
            "mlx-lm": "0.32.2", "xllamacpp": "2026.10.11549", "llama-cpp-python": "0.3.36",
        }
    )  # fmt: skip
    help: str | None = " ".join(LLAMA_SERVER_KNOWS)
    brew: set[str] = field(default_factory=set)

    def total_bytes(self) -> int:
        return self.total

    def is_unified(self) -> bool:
        return self.gpu_limit is not None

    def gpu_limit_bytes(self) -> int | None:
        return self.gpu_limit

    def pressure(self) -> str | None:
        return self.short

    def swap_bytes_per_s(self) -> float:
        return self.swaps

    def is_translated(self) -> bool:
        return self.translated

    def power(self) -> Power:
        return self.held_back

    def niceness(self, pid: int) -> int:
        return self.nice

    def listeners(self, ports: Any) -> dict[int, tuple[str, int]]:
        return {port: holder for port, holder in self.who.items() if port in ports}

    def is_taken(self, address: str, port: int) -> bool:
        return port in self.taken

    def why_unreadable(self, directory: Any) -> str | None:
        return self.unreadable.get(str(directory))

    def free_bytes(self, path: Any) -> int:
        return self.free

    def versions(self, python: Any, packages: Any) -> dict[str, str]:
        return {name: self.packages[name] for name in packages if name in self.packages}

    def help_of(self, program: str) -> str | None:
        return self.help

    def has_brew_service(self, formula: str) -> bool:
        return formula in self.brew
