"""Prompts that outlive a llama.cpp server: a file for each of its sequences, as it writes them.

It reads a file when it is told to, not when a prompt comes; so the last prompts of all sequences
are read at the end of a load. Where a file is damaged, it may end the process (seen with xllamacpp
2026.10): a file whose name does not tell its size is not read, and one that is read is out of the
way meanwhile, and gone if that was the end.
"""

import http
import http.client
import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from llmd.hosts.saved_prompts import MIN_TOKENS, Allowance, forget, place, used
from llmd.hosts.sockets import ask


RESTORE_S: Final = 3.0
"""A load is not held up for longer by prompts that may never be asked again."""

log = logging.getLogger("llmd.host")


class SavedSlots:
    """The files in *directory*, which is made if need be; the server must know it.

    Args:
        server: Its socket, or its port on loopback.
        headers: Sent with each request.
        directory: As the server was given it (`slot_save_path`).
        token_bytes: What one token of a sequence takes, about.

    Raises:
        OSError: The directory cannot be made.
    """

    def __init__(
        self,
        server: Path | int,
        directory: Path,
        *,
        headers: Mapping[str, str] | None = None,
        token_bytes: float = 0.0,
    ) -> None:
        self._server = server
        self._headers = headers
        self.directory = place(directory)
        self._token_bytes = token_bytes
        self._restored: dict[int, Any] = {}
        """Of each sequence that was restored, what tells whether it was used since."""

    def restore(self) -> bool:
        """Give each sequence the prompt that it was left with; False when the server broke down."""
        began_s, tried, restored = time.monotonic(), 0, set()
        for slot in self._slots(RESTORE_S):
            number, left_s = slot["id"], began_s + RESTORE_S - time.monotonic()
            file = self._file(number)
            if left_s > 0 and file is not None:
                tried += 1
                if self._read(number, file, left_s):
                    restored.add(number)
        if not tried:
            return True
        slots = self._slots(RESTORE_S)
        self._restored = {slot["id"]: _use(slot) for slot in slots if slot["id"] in restored}
        log.info("%d prompts read in %.3f s", len(restored), time.monotonic() - began_s)
        return bool(slots)

    def save(self, allowance: Allowance) -> None:
        """Write what *allowance* admits of the prompts that the sequences hold.

        Raises:
            OSError: The directory cannot be made, or a file not be given its name.
        """
        place(self.directory)
        for slot in self._slots(allowance.left_s):
            number, tokens = slot["id"], int(slot.get("n_prompt_tokens") or 0)
            if tokens < MIN_TOKENS or slot.get("is_processing"):
                continue
            before = self._file(number)
            if before is not None and self._restored.get(number) == _use(slot):
                continue  # as it was read
            if not allowance.admits(tokens * self._token_bytes):
                continue
            unfinished = self.directory / f"new-{number}"
            if not self._ask(number, "save", unfinished.name, allowance.left_s):
                forget(unfinished)
                return
            if before is not None:
                forget(before)
            size = unfinished.stat().st_size
            allowance.spend(unfinished.replace(self.directory / f"slot-{number}-{size}.state"))

    def _file(self, number: int) -> Path | None:
        """What is saved of one sequence, if it is whole: a machine may have died before it was."""
        for file in self.directory.glob(f"slot-{number}-*.state"):
            if file.stem == f"slot-{number}-{file.stat().st_size}":
                return file
            forget(file)
        return None

    def _read(self, number: int, file: Path, timeout_s: float) -> bool:
        aside = self.directory / f"new-{file.name}"
        try:
            file.replace(aside)
            if self._ask(number, "restore", aside.name, timeout_s):
                used(aside.replace(file))
                return True
        except OSError as error:
            log.warning("%s cannot be moved: %s", file.name, error)
        forget(aside)
        return False

    def _slots(self, timeout_s: float) -> list[dict[str, Any]]:
        """What the server lists; nothing when it does not."""
        try:
            status, answer = ask(
                self._server, "GET", "/slots", headers=self._headers, timeout_s=timeout_s
            )
            slots = json.loads(answer) if status == http.HTTPStatus.OK else []
            return [s for s in slots if isinstance(s, dict) and isinstance(s.get("id"), int)]
        except (OSError, http.client.HTTPException, ValueError, TypeError):
            return []

    def _ask(self, number: int, action: str, name: str, timeout_s: float) -> bool:
        """Have one sequence saved or restored; whether it was."""
        path, body = f"/slots/{number}?action={action}", {"filename": name}
        try:
            status, answer = ask(
                self._server, "POST", path, body, headers=self._headers, timeout_s=timeout_s
            )
        except (OSError, http.client.HTTPException) as error:
            status, answer = 0, repr(error)
        if status != http.HTTPStatus.OK:
            log.warning("no %s of sequence %d: %s", action, number, answer[:200])
        return status == http.HTTPStatus.OK


def saved_slots(
    options: Mapping[str, Any],
    server: Path | int,
    headers: Mapping[str, str] | None = None,
    *,
    version: str = "",
) -> SavedSlots | None:
    """The prompts that earlier hosts of a profile left; None when none are kept.

    The directory is there afterwards, as servers want it when they start.

    *options* are those of a launch: `saved_prompts_dir` and `token_bytes`; *version* is the name of
    a directory in the former, for servers whose version is known here.
    """
    directory = options.get("saved_prompts_dir")
    if directory is None:
        return None
    try:
        token_bytes = float(options.get("token_bytes", 0.0))
        at = Path(directory, version)
        return SavedSlots(server, at, headers=headers, token_bytes=token_bytes)
    except OSError as error:
        log.warning("prompts are not saved: %s", error)
        return None


def _use(slot: Mapping[str, Any]) -> tuple[Any, ...]:
    """Differs once a sequence has served another request."""
    return slot.get("id_task"), slot.get("n_prompt_tokens")
