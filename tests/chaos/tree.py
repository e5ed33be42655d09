"""A small tree whose recipes are at work most of the time, in the middle of writing what they make."""

from __future__ import annotations

from pathlib import Path

PARTS = ("one", "two", "three", "four")

_TOP = """\
PARTS = {parts}
all: program
program: $(PARTS:%=%/part.a)
\t$(CC) -o $@ -Wl,--whole-archive $^ -Wl,--no-whole-archive
$(PARTS:%=%/part.a): %/part.a: FORCE
\t+@$(MAKE) --no-print-directory -C $*
FORCE:
.PHONY: all FORCE
"""

_PART = """\
OBJECTS = a.o b.o
part.a: $(OBJECTS) table.o
\t@$(AR) rcD $@ $^
%.o: %.c
\t@$(CC) -O2 -MMD -c -o $@ $<
table.c: table.txt
\t@(while read line; do sleep 0.03; echo "extern int $$line; int $$line;"; done < $<) > $@
-include $(OBJECTS:.o=.d)
"""


def make_tree(folder: Path, lines: int = 25, functions: int = 40) -> None:
    """Write it.

    Args:
        lines: of each table, of which each takes a recipe some time to write.
        functions: of each source, which a compiler takes its time for.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Makefile").write_text(_TOP.format(parts=" ".join(PARTS)))
    for part in PARTS:
        place = folder / part
        place.mkdir()
        (place / "Makefile").write_text(_PART)
        (place / "part.h").write_text(f"#define PART {len(part)}\n")
        (place / "table.txt").write_text("".join(f"{part}_{number}\n" for number in range(lines)))
        for name in ("a", "b"):
            text = [
                f"double {part}_{name}_{number}(double x) {{ for (int i = 0; i < PART; i++)"
                f" x = x * {number + 1}.5 + x / (i + 2.25); return x; }}"
                for number in range(functions)
            ]
            main = "int main(void) { return 0; }\n" if (part, name) == ("one", "a") else ""
            (place / f"{name}.c").write_text('#include "part.h"\n' + "\n".join(text) + "\n" + main)
