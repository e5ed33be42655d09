"""A page, as far as tests look at it: elements, their texts, links and forms."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

_EMPTY = frozenset(["meta", "link", "input", "br", "img", "use", "path"])
"""Elements that nothing stands in."""


@dataclass
class Element:
    """One element.

    Attributes:
        parts: texts and elements in it, in order.
    """

    tag: str
    attributes: dict[str, str] = field(default_factory=dict)
    parts: list[str | Element] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text in it, with single spaces."""
        return " ".join("".join(self._texts()).split())

    def _texts(self) -> Iterator[str]:
        for part in self.parts:
            if isinstance(part, str):
                yield part
            else:
                yield from part._texts()

    def all(self, tag: str = "", **attributes: str) -> list[Element]:
        """Those in it of that tag, and with those attributes (`class_` for class: one of its words)."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [
            each
            for each in self._elements()
            if tag in ("", each.tag) and all(each._has(name, value) for name, value in wanted.items())
        ]

    def one(self, tag: str = "", **attributes: str) -> Element:
        found = self.all(tag, **attributes)
        assert len(found) == 1, (tag, attributes, [each.attributes for each in found])
        return found[0]

    def _has(self, name: str, value: str) -> bool:
        there = self.attributes.get(name)
        return there is not None and (value in there.split() if name == "class" else value == there)

    def _elements(self) -> Iterator[Element]:
        for part in self.parts:
            if isinstance(part, Element):
                yield part
                yield from part._elements()

    def fields(self) -> dict[str, str]:
        """What a form would send as it is."""
        found = {}
        for each in self.all():
            name = each.attributes.get("name")
            if name is None:
                continue
            if each.tag == "textarea":
                found[name] = "".join(each._texts())
            elif each.tag == "select":
                chosen = [option for option in each.all("option") if "selected" in option.attributes]
                found[name] = (chosen or each.all("option"))[0].attributes["value"]
            elif each.tag == "input" and (
                each.attributes.get("type") not in ("radio", "checkbox") or "checked" in each.attributes
            ):
                found[name] = each.attributes.get("value", "")
        return found


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("")
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].parts.append(element)
        if tag not in _EMPTY:
            self.open.append(element)

    def handle_endtag(self, tag: str) -> None:
        if tag in _EMPTY:
            return
        assert self.open[-1].tag == tag, f"</{tag}> ends <{self.open[-1].tag}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].parts.append(data)


def read(text: str) -> Element:
    """A page. That each element is closed, and has each attribute once, is looked at on the way."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == [reader.root], [each.tag for each in reader.open]
    return reader.root
