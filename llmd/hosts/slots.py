"""How far the sequences of a llama.cpp server are, without ever waiting for it.

Its `/slots` is answered by the very loop that computes, between two pieces of work: quick while it
generates, after seconds in a long prompt, never when it hangs.
"""

import http
import http.client
import json
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from llmd.hosts.sockets import ask


_COUNTERS: Final = ("id_task", "n_prompt_tokens_processed", "n_prompt_tokens")


class SlotsWatch:
    """Asks on a thread of its own, one question at a time.

    Args:
        place: The server's socket, or its port on loopback.
        headers: Sent with each question.
        path: Of the list of its sequences.
    """

    def __init__(
        self, place: Path | int, headers: Mapping[str, str] | None = None, path: str = "/slots"
    ) -> None:
        self._place = place
        self._headers = headers or {}
        self._path = path
        self._asking: threading.Thread | None = None
        self._known: dict[str, Any] = {"progress": "", "resting": True}

    def look(self) -> dict[str, Any]:
        """What the last answer told, as `Engine.pulse`; asks again unless an answer is owed."""
        if self._asking is not None and self._asking.is_alive():
            return {**self._known, "resting": False} if self._known else {}
        known = self._known
        self._asking = threading.Thread(target=self._ask, name="slots", daemon=True)
        self._asking.start()
        return known

    def wait(self, timeout_s: float) -> bool:
        """Wait for the answer that is owed, if any; whether it came."""
        if self._asking is not None:
            self._asking.join(timeout_s)
        return self._asking is None or not self._asking.is_alive()

    def _ask(self) -> None:
        try:
            status, answer = ask(
                self._place, "GET", self._path, headers=self._headers, timeout_s=None
            )
            # One that answers anything else does not tell.
            self._known = summary(json.loads(answer)) if status == http.HTTPStatus.OK else {}
        except (OSError, http.client.HTTPException, ValueError, TypeError, AttributeError):
            return  # it ends, or is no llama.cpp: what is known stays


def summary(slots: Any) -> dict[str, Any]:
    """*slots*, as the server lists them, as `Engine.pulse`; numbers only, nothing of a prompt.

    Raises:
        TypeError, AttributeError: They are something else.
    """
    told = []
    for slot in slots:
        generated = [token.get("n_decoded") for token in slot.get("next_token") or ()]
        told.append([*(slot.get(name) for name in _COUNTERS), generated])
    resting = not any(slot.get("is_processing") for slot in slots)
    return {"progress": json.dumps(told), "resting": resting}
