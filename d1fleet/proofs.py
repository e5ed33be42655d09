"""Do hosts see the folders of a build as we do? Files with random names, which they are asked for."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

from . import protocol
from .hostlink import HostLink
from .tree import Tree, forget, prove


class Proofs:
    """The proofs of one build's folders; they lie there only while a host has still to answer.

    Args:
        folders: the build's own first: a host that does not see that one is of no use.
        notes: a file of ours that keeps the proofs' names until the build is over; empty keeps none.
    """

    def __init__(self, folders: Sequence[bytes], notes: str) -> None:
        self._folders = folders
        self._notes = notes
        self.here = {device for device in map(_device, folders) if device is not None}
        """Devices of these folders."""
        self._roots = {_mount_point(each): device for each in folders if (device := _device(each))}
        """Where their file systems are mounted here, innermost first -> device."""
        self._trees: list[Tree] = []
        """Proofs that lie there now."""
        self._unchecked: dict[HostLink, set[int]] = {}
        """Trees that a host has still to answer for."""
        self._devices: dict[HostLink, set[int]] = {}
        """Devices, as seen here, on which a host has the same files as we."""

    def ask(self, link: HostLink) -> None:
        """Ask a host for all folders. The proofs are written just before: recipes see what lies in the tree.

        Raises:
            TreeError: a folder cannot be written to.
        """
        if not self._trees:
            for number, folder in enumerate(self._folders):
                self._trees.append(prove(number, folder, self._notes))
        self._unchecked[link] = {tree.number for tree in self._trees}
        for tree in self._trees:
            link.send(protocol.CheckTree(0, tree.number, tree.folder, tree.nonce, tree.content))

    def answered(self, link: HostLink, message: protocol.TreeChecked) -> bool:
        """Take an answer; False when the host does not see the build's own folder. What nobody asked is
        passed over.
        """
        unchecked = self._unchecked.get(link, set())
        if message.tree not in unchecked:
            return True
        unchecked.discard(message.tree)
        if not message.reason and message.tree < len(self._trees):
            self._devices.setdefault(link, set()).add(self._trees[message.tree].device)
        return not message.reason or message.tree != 0

    def asked(self, link: HostLink) -> bool:
        """Has the host still to answer?"""
        return bool(self._unchecked.get(link))

    def seen(self, link: HostLink) -> set[int]:
        """Devices, as seen here, on which it has the same files as we."""
        return self._devices.get(link, set())

    def device_of(self, folder: bytes) -> int:
        """The device of a folder that a host names, -1 when it is on none of ours. Nothing is looked up: a
        name from elsewhere must not make this machine mount or read anything.
        """
        if b".." in folder.split(b"/"):
            return -1
        for root, device in self._roots.items():
            if folder == root or folder.startswith(root.rstrip(b"/") + b"/"):
                return device
        return -1

    def settle(self, links: Iterable[HostLink]) -> None:
        """Remove the proofs once all hosts that were asked have answered; a later one gets new ones."""
        if not any(link.open and self.asked(link) for link in links):
            self.withdraw()

    def drop(self, link: HostLink) -> None:
        """Forget a connection that is over."""
        self._unchecked.pop(link, None)
        self._devices.pop(link, None)

    def withdraw(self) -> None:
        """Remove all proofs."""
        for tree in self._trees:
            forget(tree)
        self._trees.clear()


def _mount_point(folder: bytes) -> bytes:
    """The root of the file system that a folder is on."""
    device = _device(folder)
    while folder != b"/" and _device(os.path.dirname(folder)) == device:
        folder = os.path.dirname(folder)
    return folder


def _device(folder: bytes) -> int | None:
    try:
        return os.stat(folder).st_dev
    except OSError:
        return None
