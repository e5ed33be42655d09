"""The error tree, and the exit codes that stand for it.

    D1fleetError                 80  something of ours broke
    ├── UsageError               81  an option or a setting is wrong               (the user's side)
    ├── InventoryError           82  no, empty or unreadable inventory             (the inventory's side)
    │   └── UnknownProjectError  83  no such project or host in it
    ├── TrustError               84  settings that came with a tree, not trusted yet (the user's side)
    ├── ToolError                85  no make here, or one that cannot be used      (this machine)
    ├── RuntimeFolderError       86  a folder of ours is unsafe or unusable        (this machine)
    ├── TreeError                87  the tree is in use, or cannot be checked      (this machine)
    ├── JobLostError             88  a job ended by infrastructure, not by make    (network or host)
    ├── HostError                89  a host cannot take part                       (host)
    │   ├── ConnectError         90  it cannot be reached
    │   ├── HostKeyError         91  its key is unknown or has changed
    │   ├── LoginError           92  it refuses us
    │   ├── ServerStartError     93  the d1make server does not start there
    │   └── UnfitError           94  it runs, but is not fit for this build
    ├── ProtocolError            95  a peer sent what the protocol does not allow  (peer)
    ├── NoRecordError            96  no record of a build, or no such job in it    (the user's side)
    ├── UnwellError              97  doctor has found faults                       (host)
    ├── ChaosError               98  a fault has broken a build, or it fails anyway (this project)
    ├── RegistryError            99  the registry is away, or refuses              (registry or network)
    └── ProgramError            127  the program of --command is not there         (the user's side)
        └── NotExecutableError  126  it is there, and cannot be executed

make's own codes (0, 1, 2) and its death by a signal pass through untouched; the band 80 to 99 is ours. The
two about a program that was to be started are what a shell, env(1) or nohup(1) would end with.
"""

from __future__ import annotations


class D1fleetError(Exception):
    """Something that a user can be told: what happened, and what to do next.

    Args:
        message: what is wrong and where, one line.
        mend: what to do about it, one line; empty when nothing sensible can be said.
    """

    exit_code = 80

    def __init__(self, message: str, mend: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.message}\n  mend: {self.mend}" if self.mend else self.message


class UsageError(D1fleetError):
    """An option or a setting has a value that cannot be used."""

    exit_code = 81


class InventoryError(D1fleetError):
    """The inventory is missing, empty, unreadable or has a value that cannot be used."""

    exit_code = 82


class UnknownProjectError(InventoryError):
    """The inventory has no such project or host."""

    exit_code = 83


class TrustError(D1fleetError):
    """A settings file came with a tree, and nobody has said that it may be followed."""

    exit_code = 84


class ToolError(D1fleetError):
    """A program that we need is missing here or too old."""

    exit_code = 85


class RuntimeFolderError(D1fleetError):
    """A folder for sockets, locks or caches is unsafe or cannot be used."""

    exit_code = 86


class TreeError(D1fleetError):
    """Another build is at work in this folder, or the tree cannot be checked."""

    exit_code = 87


class JobLostError(D1fleetError):
    """A job ended because of its host or the network, not because of make."""

    exit_code = 88


class HostError(D1fleetError):
    """A host cannot take part in a build; the build goes on without it."""

    exit_code = 89


class ConnectError(HostError):
    """The host cannot be reached."""

    exit_code = 90


class HostKeyError(HostError):
    """The host's key is unknown, or differs from the one we know."""

    exit_code = 91


class LoginError(HostError):
    """The host is there and refuses our login."""

    exit_code = 92


class ServerStartError(HostError):
    """The login works, but the d1make server does not start."""

    exit_code = 93


class UnfitError(HostError):
    """The server runs, but the host is not fit for this build (tree, user, make ...)."""

    exit_code = 94


class ProtocolError(D1fleetError):
    """A peer sent something that the protocol does not allow."""

    exit_code = 95


class NoRecordError(D1fleetError):
    """There is no record of a build to tell from, or no such job in it."""

    exit_code = 96


class UnwellError(D1fleetError):
    """An examination has found what keeps builds from running, or hosts out of them."""

    exit_code = 97


class ChaosError(D1fleetError):
    """A fault has broken a build for good, or the build cannot be tried."""

    exit_code = 98


class RegistryError(D1fleetError):
    """The registry cannot be reached, or does not do what it was asked for."""

    exit_code = 99


class ProgramError(D1fleetError):
    """The program that a build was to run is not there."""

    exit_code = 127


class NotExecutableError(ProgramError):
    """The program is there, and cannot be executed."""

    exit_code = 126
