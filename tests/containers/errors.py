"""What can go wrong with test hosts.

ContainerError          a command failed; the text has its last words
 |- ImageUnavailable    no image can be made here (no mirror, no network): a reason to skip
 |- NameTaken           a fleet of this name is there
 |- NoRoom              this machine's limits leave no room for so many hosts
 |- NotOurs             an interface or a folder that this tool must not touch
"""

from __future__ import annotations


class ContainerError(Exception):
    """Podman, a network or a host did not do what it should; the text says which and what it said."""


class ImageUnavailable(ContainerError):
    """An image can neither be made nor found here; the text serves as a test's reason to skip."""


class NameTaken(ContainerError):
    """A fleet of this name is there, and it is somebody's."""


class NoRoom(ContainerError):
    """A limit of the kernel's leaves no room for so many hosts; the text says which."""


class NotOurs(ContainerError):
    """Refused: what was asked for would touch something that this tool did not make."""
