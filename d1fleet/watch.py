"""Sees that an inventory has changed, and has it read again, while a build goes on.

Looking is a thread's work: where the inventory lies on a file server that hangs, a build's leases go on.
Reading is a process's: Ansible takes a second or two, and its library changes what belongs to all threads.
Where the inventory names a registry, that is asked, too, whether it would say something else by now.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from . import words
from .errors import D1fleetError, InventoryError, RegistryError
from .fleet import Fleet, Inventory
from .helper import Helper
from .inventory import used_config
from .inventory_cache import Stamps, registry_files, stamps
from .loop import Loop

ASK_S = 5.0
"""Between two questions to a registry: a host that joins gets work so much later, and as Ansible takes."""

LOOK_S = 0.5
"""Between two looks."""

_SHARE = 0.02
"""Looking takes at most this part of the time: an inventory of thousands of files is looked at less often."""


def look(inventories: Sequence[str]) -> Stamps:
    """An inventory's files as they are now."""
    return stamps(inventories, used_config(inventories)) if inventories else ()


def state(inventories: Sequence[str]) -> Stamps:
    """The same, and what the registries say that are named there."""
    return look(inventories) + _Registries(inventories).look()


class _Registries:
    """What the registries of an inventory say, as stamps: like those of files, they are others when it has to
    be read anew.

    Args:
        before: what they said before, among other stamps.
        complain: is told why one cannot be asked, once until it can be again.
    """

    def __init__(
        self,
        inventories: Sequence[str],
        before: Stamps = (),
        complain: Callable[[RegistryError], None] = lambda error: None,
    ) -> None:
        self._paths = [Path(path) for path in inventories]
        self._complain = complain
        self._said = {name: said for name, said, _, _ in before}
        self._away: set[Path] = set()
        self._asked_s = -ASK_S

    def look(self) -> Stamps:
        """Ask, where it is time to; one that is away would say what it has said before."""
        if time.monotonic() - self._asked_s >= ASK_S:
            names = {f"what {file} names": file for file in registry_files(self._paths)}
            self._said = {name: self._said.get(name, 0) for name in names}
            for name, file in names.items():
                self._ask(name, file)
            self._asked_s = time.monotonic()
        return tuple((name, said, 0, 0) for name, said in self._said.items())

    def _ask(self, name: str, file: Path) -> None:
        # Not above: builds whose inventory names none do not pay for it.
        from .registryfile import digest, open_registry

        try:
            self._said[name] = digest(open_registry(file))
            self._away.discard(file)
        except RegistryError as error:
            if file not in self._away:
                self._away.add(file)
                self._complain(error)
        except InventoryError:
            self._said[name] = 0  # Ansible says what is wrong with it


class InventoryWatch:
    """Calls back with the project's hosts when the inventory has changed.

    What programs and other plugins of an inventory would answer now is not asked: they run again when a file
    of the inventory has changed, their own included.

    Args:
        inventories: as for `load_inventory`.
        project: the one that the build has taken.
        read: the inventory as it was before it was read, by `state`.
        on_change: called in the loop's thread.
    """

    def __init__(
        self,
        loop: Loop,
        inventories: Sequence[str],
        project: str,
        read: Stamps,
        on_change: Callable[[Fleet], None],
    ) -> None:
        self._loop = loop
        self._inventories = inventories
        self._project = project
        self._on_change = on_change
        self._ended = threading.Event()
        self._reader: Helper | None = None
        self._changed_meanwhile = False
        self._said = ""
        self._thread = threading.Thread(target=self._watch, args=(read,), name="inventory", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no more; what is being read is of no use now."""
        self._ended.set()
        self._thread.join(LOOK_S)  # no longer: it may hang with a file server
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _watch(self, read: Stamps) -> None:
        last: Stamps | None = None
        pause_s = LOOK_S
        registries = _Registries(self._inventories, read, self._post_away)
        while not self._ended.wait(pause_s):
            began = time.monotonic()
            files = look(self._inventories)
            took_s = time.monotonic() - began
            found = files + registries.look()
            # Editors write in several steps: what has changed has to stay as it is for a moment.
            if found != read and found == last:
                read = found
                self._loop.post(self._read)
            last = found
            pause_s = max(LOOK_S, took_s / _SHARE)

    def _post_away(self, error: RegistryError) -> None:
        self._loop.post(
            lambda: words.say(f"hosts that come and go are not seen, those of the build stay: {error}")
        )

    def _read(self) -> None:
        if self._ended.is_set():
            return
        if self._reader is not None:
            self._changed_meanwhile = True
            return
        try:
            self._reader = Helper(self._loop, "d1fleet.inventory", self._inventories, self._has_read)
        except D1fleetError as error:
            self._complain(error)

    def _has_read(self, said: bytes) -> None:
        self._reader = None
        answer = _answer(said)
        if self._changed_meanwhile:
            self._changed_meanwhile = False
            self._read()
            return
        try:
            if isinstance(answer, D1fleetError):
                raise answer
            fleet = answer.fleet(self._project)
        except D1fleetError as error:
            self._complain(error)
            return
        self._said = ""
        self._on_change(fleet)

    def _complain(self, error: D1fleetError) -> None:
        if str(error) != self._said:
            self._said = str(error)
            words.say(f"the inventory has changed and cannot be followed, hosts stay as they are: {error}")


def _answer(data: bytes) -> Inventory | D1fleetError:
    """What the process has said: an inventory, or what is wrong with it."""
    try:
        said = json.loads(data)
        if "error" in said:
            return InventoryError(*said["error"])
        return Inventory.of(said["inventory"])
    except (ValueError, KeyError, TypeError) as error:
        return InventoryError(f"reading it ended without an answer ({error})", "start the build again")
