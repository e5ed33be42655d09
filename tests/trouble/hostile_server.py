"""A d1make server that means ill: run in place of a host's Python, it speaks the protocol as far as it likes.

Usage: hostile_server.py FOLDER HOW. It wants FOLDER/evil to be made on another machine, and notes its answers
in FOLDER/answers. HOW is `asks`: all at once, `late`: when others have made two files, one after the other
until one is done, or `endless`: it writes.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from d1fleet import protocol
from d1fleet.protocol import Decoder, Message, encode

ASKED = 3000


def write(*messages: Message) -> None:
    data = memoryview(b"".join(map(encode, messages)))
    while data:
        data = data[os.write(1, data) :]


def read(decoder: Decoder) -> Iterator[Message]:
    while data := os.read(0, 1 << 16):
        yield from decoder.feed(data)


def ask(folder: Path, run: protocol.Run, number: int) -> Message:
    evil = f"--eval=$(shell touch {folder}/evil)"
    argv = protocol.pack_block([b"make", evil.encode(), b"-f", b"/dev/null"])
    return protocol.Ask(
        2 * number + 1, run.attempt, folder=run.folder, argv=argv, environment=run.environment
    )


def main(folder: Path, how: str) -> None:
    os.write(1, b"D1FLEET-SERVER 3.11\n")
    while os.read(0, 1) != b"\n":  # what it shall run
        pass
    os.write(1, b"have\n")
    answers: dict[str, int] = {}
    asked = 0
    run: protocol.Run | None = None
    for message in read(Decoder("coordinator")):
        if isinstance(message, protocol.Welcome):
            write(protocol.Hello(machine="evil", hostname="evil", slots=1, cpus=1, make="4.3", python="3.11"))
        elif isinstance(message, protocol.CheckTree):
            write(protocol.TreeChecked(tree=message.tree))
            write(protocol.Beat(seq=1))
        elif isinstance(message, protocol.Run):
            run = message
            answers = dict.fromkeys(("Stay", "Placed", "Exit"), 0)
            if how == "endless":
                while True:
                    write(protocol.Data(run.attempt, 1, False, b"x" * protocol.OUTPUT_CHUNK))
            while how == "late" and len(list(folder.glob("tree/made-*"))) < 2:
                time.sleep(0.01)  # until our machine has room
            at_once = 1 if how == "late" else ASKED
            write(*(ask(folder, run, number) for number in range(at_once)))
            asked = at_once
        elif type(message).__name__ in answers and run is not None:
            answers[type(message).__name__] += 1
            ended = answers["Stay"] + answers["Exit"]
            if ended == ASKED or (how == "late" and answers["Exit"]):
                (folder / "answers").write_text(repr(answers))
                write(protocol.Data(run.attempt, 1, True, b"done\n"), protocol.Exit(run.attempt))
            elif ended == asked:
                if how == "late":  # what our machine has made may not have ended yet
                    time.sleep(0.01)
                write(ask(folder, run, asked))
                asked += 1
        elif isinstance(message, protocol.Bye):
            write(protocol.Gone())
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
