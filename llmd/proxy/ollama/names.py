"""The names that Ollama's clients have for profiles."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from llmd.errors import InvalidRequestError, ModelNotFoundError
from llmd.proxy.gate import ModelCard


LATEST: Final = ":latest"


def wanted(body: Mapping[str, Any]) -> str:
    """The model that *body* asks for, as it was written.

    Raises:
        InvalidRequestError: It names none.
    """
    model = body.get("model", body.get("name"))
    if not isinstance(model, str) or not model:
        raise InvalidRequestError("model is required", param="model")
    return model


def find(model: str, cards: Iterable[ModelCard]) -> ModelCard:
    """The card of the profile that *model* names, with or without `:latest`, or by an alias.

    Raises:
        ModelNotFoundError: There is none.
    """
    by_name: dict[str, ModelCard] = {}
    for card in cards:
        by_name[card.name] = card
        by_name.update(dict.fromkeys(card.aliases, card))
    found = by_name.get(model) or by_name.get(model.removesuffix(LATEST))
    if found is None:
        known = ", ".join(sorted(by_name)) or "none"
        raise ModelNotFoundError(f"model {model!r} not found", remedy=f"known: {known}")
    return found


def timestamp(seconds: float | None = None) -> str:
    """*seconds* of the epoch, or now, as Ollama writes them."""
    moment = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat().replace("+00:00", "Z")
