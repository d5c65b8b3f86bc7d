"""`llmd-ctl models`: what is on disk. Needs no daemon, and loads nothing."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from msgspec import Struct
from msgspec.structs import replace

from llmd.cli.invocation import FC, Command, Invocation, pass_invocation
from llmd.cli.surroundings import Surroundings, config_option, look_around
from llmd.cli.terminal import (
    Cell,
    Palette,
    columns,
    describe_bytes,
    describe_victims,
    harmless,
    is_terminal,
)
from llmd.errors import LlmdError, WeightsError


if TYPE_CHECKING:
    from llmd.core.footprint import Footprint
    from llmd.weights.discover import Weights
    from llmd.weights.remembered import Shapes

_CONTEXT: Final = (256, 2**27)
_NAME_COLUMNS_MIN: Final = 16


class Row(Struct, frozen=True):
    """One model as it is listed, and as `--json` prints it.

    Attributes:
        name: For people.
        model: What a profile writes in `model:`.
        path: Where it is.
        format: `mlx` or `gguf`.
        size_bytes: On disk, everything that belongs to it.
        partial_bytes: Of downloads that have not ended.
        projectors: Names of the files that give it eyes or ears.
        profiles: Which use it.
        architecture: The model type; with all below, None when `error` says why it is unknown.
        quantization: `4-bit`, `Q4_K_M`, `bf16`.
        parameters: How many weights.
        trained_context: Tokens it was trained for; 0 when it does not say.
        context: Tokens of one sequence in `footprint`.
        parallel: Sequences in `footprint`.
        footprint: Bytes it would hold, by cause.
        footprint_bytes: Their sum.
        error: What is wrong with it.
        remedy: What to do about that.
    """

    name: str
    model: str
    path: str
    format: str
    size_bytes: int
    partial_bytes: int | None
    projectors: tuple[str, ...]
    profiles: tuple[str, ...]
    architecture: str | None = None
    quantization: str | None = None
    parameters: int | None = None
    trained_context: int | None = None
    context: int | None = None
    parallel: int | None = None
    footprint: "Footprint | None" = None
    footprint_bytes: int | None = None
    error: str | None = None
    remedy: str | None = None


def size_options(command: FC) -> FC:
    """`--context` and `--parallel`, as a profile would have them."""
    for option in (
        click.option(
            "--parallel",
            type=click.IntRange(1, 256),
            metavar="N",
            help="Sequences at the same time [default: the profile's, else 2].",
        ),
        click.option(
            "--context",
            type=click.IntRange(*_CONTEXT),
            metavar="N",
            help="Tokens of one sequence [default: the profile's, else the model's, to 32768].",
        ),
    ):
        command = option(command)
    return command


@click.command(cls=Command)
@click.argument("name", required=False)
@size_options
@config_option()
@pass_invocation
def models(
    invocation: Invocation,
    *,
    name: str | None,
    context: int | None,
    parallel: int | None,
    chosen: str | None,
) -> None:
    """List the models on disk: MLX directories and GGUF files.

    Looks in models_dirs, LM Studio's folders, the Hugging Face cache and Ollama's store. NAME lists
    those that have it in their names; the only one is described in full.
    """
    from llmd.weights.discover import discover
    from llmd.weights.remembered import Shapes

    around = look_around(invocation, chosen)
    found = discover(around.models_dirs)
    if name is not None:
        found = [one for one in found if name.lower() in f"{one.name} {one.path}".lower()]
    users = _users(around, found)
    shapes = Shapes()
    rows = [row_of(one, shapes, users.get(one.path, ()), context, parallel) for one in found]
    shapes.save()
    if invocation.as_json:
        invocation.emit({"models": rows})
        return
    if not rows:
        raise _nothing(around, name)
    palette = Palette.of(sys.stdout)
    lines = _described(rows[0]) if name and len(rows) == 1 else _table(rows, palette)
    invocation.say("\n".join(lines))


def row_of(
    weights: "Weights",
    shapes: "Shapes",
    profiles: Sequence[str],
    context: int | None,
    parallel: int | None,
) -> Row:
    """All that is known of *weights*; what is wrong with them is part of it."""
    from llmd.weights.sizing import DEFAULT_SEQUENCES, Use

    row = Row(
        name=" ".join(harmless(weights.name).split("\n")),
        model=weights.model,
        path=str(weights.path),
        format=weights.format,
        size_bytes=weights.size_bytes,
        partial_bytes=weights.partial_bytes,
        projectors=tuple(path.name for path in weights.projectors),
        profiles=tuple(profiles),
    )
    if weights.partial_bytes is not None and not weights.size_bytes:
        return replace(row, error="its download has not ended", remedy=_resume(weights))
    try:
        shape = shapes.read(weights.path, "llama.cpp" if weights.format == "gguf" else "mlx")
    except WeightsError as error:
        return replace(row, error=error.message, remedy=error.remedy)
    use = Use(shape, context_tokens=context, sequences=parallel or DEFAULT_SEQUENCES)
    footprint = use.footprint()
    return replace(
        row,
        architecture=harmless(shape.architecture),
        quantization=shape.quantization,
        parameters=shape.parameters,
        trained_context=shape.context_tokens,
        context=use.context,
        parallel=use.sequences,
        footprint=footprint,
        footprint_bytes=footprint.total_bytes,
    )


def describe_count(count: int) -> str:
    """A number of parameters as models are called: `30.5B`, `650K`."""
    for unit, size in (("T", 10**12), ("B", 10**9), ("M", 10**6), ("K", 10**3)):
        if count >= size:
            value = count / size
            return f"{value:.0f}{unit}" if value >= 99.5 else f"{value:.1f}{unit}"
    return str(count)


def _resume(weights: "Weights") -> str:
    if weights.path.name.startswith("models--"):
        return f"llmd-ctl pull {weights.name}"
    return "resume it with the program that began it, or delete it"


def _users(around: Surroundings, found: Sequence["Weights"]) -> dict[Path, list[str]]:
    """Which profiles use which of *found*, by its path."""
    from llmd.config.models import LocalWeights, MlxProfile
    from llmd.weights.discover import named

    users: dict[Path, list[str]] = {}
    for profile in around.config.profiles.values() if around.config is not None else ():
        if isinstance(profile, LocalWeights):
            kind = "mlx" if isinstance(profile, MlxProfile) else "gguf"
            fitting = [weights for weights in found if weights.format == kind]
            for model in filter(None, (profile.model, profile.draft_model)):
                for weights in named(model, fitting)[:1]:
                    names = users.setdefault(weights.path, [])
                    if profile.name not in names:
                        names.append(profile.name)
    return users


def _table(rows: Sequence[Row], palette: Palette) -> Iterator[str]:
    heads = ("name", "type", "quant", "params", "context", "on disk", "needs", "profiles")
    right = {"params", "context", "on disk", "needs"}
    cells = [[Cell(head, "dim", right=head in right) for head in heads]]
    cells += [[Cell(text, style, right=head in right) for text, style, head in _fields(row, heads)]
              for row in rows]  # fmt: skip
    if is_terminal(sys.stdout):
        others = sum(max(len(row[at].text) for row in cells) + 2 for at in range(1, len(heads)))
        width = max(_NAME_COLUMNS_MIN, columns(sys.stdout) - others)
        cells = [[_cut(row[0], width), *row[1:]] for row in cells]
    yield from palette.table(cells)
    for row in rows:
        if row.error:
            yield f"{palette.paint(row.name, 'yellow')}: {harmless(row.error)}; {row.remedy}"


def _fields(row: Row, heads: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    size = describe_bytes(row.size_bytes or row.partial_bytes or 0)
    users = ", ".join(row.profiles)
    if row.error is not None:
        state = "unfinished" if row.partial_bytes is not None else "unusable"
        texts = [row.name, state, "", "", "", size, "", users]
    else:
        context = str(row.trained_context) if row.trained_context else "?"
        needs = describe_bytes(row.footprint_bytes or 0)
        count = describe_count(row.parameters or 0)
        texts = [row.name, row.architecture or "", row.quantization or "", count, context]
        texts += [size, needs, users]
    style = "yellow" if row.error is not None else ""
    for head, text in zip(heads, texts, strict=True):
        yield text, style, head


def _cut(cell: Cell, width: int) -> Cell:
    """The end of a name tells more than its beginning, which is the publisher."""
    text = cell.text if len(cell.text) <= width else f"…{cell.text[1 - width :]}"
    return cell._replace(text=text)


def _described(row: Row) -> Iterator[str]:
    yield row.name
    if row.model != row.name:
        yield f"  model: {harmless(row.model)}"
    yield f"  {harmless(row.path)}"
    size = describe_bytes(row.size_bytes)
    partial = f", {describe_bytes(row.partial_bytes)} unfinished" if row.partial_bytes else ""
    yield f"  on disk {size}{partial}"
    if row.projectors:
        yield f"  projectors: {describe_victims(row.projectors)}"
    if row.error is not None:
        yield f"  {harmless(row.error)}; {row.remedy}"
    elif row.footprint is not None:
        trained = f", trained for {row.trained_context} tokens" if row.trained_context else ""
        yield (
            f"  {row.architecture}, {row.quantization}, "
            f"{describe_count(row.parameters or 0)} parameters{trained}"
        )
        yield (
            f"  needs {describe_bytes(row.footprint_bytes or 0)} for {row.parallel} x "
            f"{row.context} tokens: {describe_footprint(row.footprint)}"
        )
    yield f"  profiles: {describe_victims(row.profiles) if row.profiles else 'none'}"


def describe_footprint(footprint: "Footprint") -> str:
    """Bytes by cause, on one line."""
    parts = (
        ("weights", footprint.weights_bytes),
        ("cache", footprint.cache_bytes),
        ("prompt cache", footprint.prompt_cache_bytes),
        ("compute", footprint.compute_bytes),
        ("runtime", footprint.runtime_bytes),
    )
    return ", ".join(f"{cause} {describe_bytes(count)}" for cause, count in parts)


def _nothing(around: Surroundings, name: str | None) -> LlmdError:
    if name is not None:
        return WeightsError(f"no model on disk has {name!r} in its name", remedy="llmd-ctl models")
    searched = describe_victims([str(path) for path in around.models_dirs])
    return WeightsError(
        f"there are no models in {searched}, nor in the Hugging Face cache",
        remedy="add the folder that holds them to `models_dirs`, or llmd-ctl pull REPO",
    )
