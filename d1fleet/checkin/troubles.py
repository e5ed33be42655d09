"""What is wrong on this host at the moment: said once in the log, and with each report to the registry."""

from __future__ import annotations

from .journal import NOTICE, log


class Troubles:
    """By subject, such as `registry` or `files`."""

    def __init__(self) -> None:
        self._said: dict[str, str] = {}
        self._reported: dict[str, str] = {}

    def say(self, subject: str, priority: int, text: str, good: str = "") -> None:
        """Log what is wrong where that is new, and that all is well again.

        Args:
            text: what is wrong; "" for nothing.
            good: what is logged when nothing is wrong any more.
        """
        before = self._said.get(subject, "")
        self._said[subject] = text
        if text and text != before:
            log(priority, text)
        elif before and not text:
            log(NOTICE, good)

    def report(self, subject: str, text: str) -> None:
        """Have the registry know, until the text is empty."""
        if text:
            self._reported[subject] = text
        else:
            self._reported.pop(subject, None)

    def of(self, subject: str) -> str:
        """What was logged last, "" when nothing is wrong."""
        return self._said.get(subject, "")

    def __str__(self) -> str:
        """For a report."""
        return "; ".join(f"{subject}: {text}" for subject, text in self._reported.items())
