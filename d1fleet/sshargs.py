"""Options of ssh(1) in an argument list: which say how to connect, and which what to do there. Pure."""

from __future__ import annotations

from collections.abc import Sequence

WITH_VALUE = "BbcFIiJlmop"
"""Options that take a value and say how to connect."""

ALONE = "46aCKkqvx"
"""Options without a value that say how to connect. Others say what to do there: that is ours."""

_LOUDNESS = "qv"

_DROPPED_WITH_VALUE = "DEeLRS"
_DROPPED_ALONE = "AMnTtXYy"
"""What Ansible's users set for playbooks and a build has no use for: terminals, forwardings, sharing."""


class BadOption(ValueError):
    """A word that cannot stand there; `letter` is empty where it is no option at all."""

    def __init__(self, word: str, letter: str = "", *, lacks_value: bool = False) -> None:
        super().__init__(f"-{letter}" if letter else "a word")
        self.word = word
        self.letter = letter
        self.lacks_value = lacks_value


def parse(
    words: Sequence[str], with_value: str = WITH_VALUE, alone: str = ALONE
) -> list[tuple[str, str | None]]:
    """Letters and values, in order.

    Raises:
        BadOption: a word is no option, an option lacks its value, or may not stand there.
    """
    found: list[tuple[str, str | None]] = []
    waiting = list(words)
    while waiting:
        option = waiting.pop(0)
        letters = option[1:]
        if not option.startswith("-") or not letters:
            raise BadOption(option)
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter in with_value:
                if not letters and not waiting:
                    raise BadOption(option, letter, lacks_value=True)
                found.append((letter, letters or waiting.pop(0)))
                break
            if letter not in alone:
                raise BadOption(option, letter)
            found.append((letter, None))
    return found


def join(options: Sequence[tuple[str, str | None]]) -> tuple[str, ...]:
    """The argument list again, each option by itself."""
    return tuple(word for letter, value in options for word in (f"-{letter}", value) if word is not None)


def of_inventory(words: Sequence[str]) -> tuple[str, ...]:
    """What Ansible's variables say of how to connect; what playbooks need beside that is left out.

    Raises:
        BadOption: as `parse`.
    """
    found = parse(words, WITH_VALUE + _DROPPED_WITH_VALUE, ALONE + _DROPPED_ALONE)
    return quiet(join([each for each in found if each[0] in WITH_VALUE + ALONE]))


def quiet(words: Sequence[str]) -> tuple[str, ...]:
    """Without -q and -v, which win over any LogLevel: what ssh says is read."""
    return join([each for each in parse(words) if each[0] not in _LOUDNESS])


def config_file(words: Sequence[str]) -> str | None:
    """The configuration that ssh would read: of several -F, the last."""
    files = [value for letter, value in parse(words) if letter == "F"]
    return files[-1] if files else None
