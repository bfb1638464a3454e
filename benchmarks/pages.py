"""Tables inside hand-written pages: what stands between two marks is written by a program.

<!-- table: builds -->
...
<!-- end -->
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kobart_runtime.errors import ConfigError

PACKAGES = ("onnxruntime", "torch", "transformers")  # whose versions stand under a table
_REGION = re.compile(r"(<!-- table: ([a-z0-9-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def filled(page: str, tables: Mapping[str, Callable[[], str]]) -> str:
    """A page with its tables written anew.

    Args:
        page: Markdown with marks.
        tables: Name -> what gives the table's Markdown.

    Raises:
        ConfigError: A mark names no table.
    """

    def fill(found: re.Match[str]) -> str:
        if found[2] not in tables:
            raise ConfigError(f"there is no table {found[2]!r}: there are {', '.join(tables)}")
        return f"{found[1]}\n{tables[found[2]]()}\n\n{found[3]}"

    return _REGION.sub(fill, page)


def fill_pages(paths: Iterable[Path], tables: Mapping[str, Callable[[], str]]) -> None:
    """Write the tables of some pages anew, in place."""
    for path in paths:
        path.write_text(filled(path.read_text(encoding="utf-8"), tables), encoding="utf-8")


def machine_line(machine: Mapping[str, Any]) -> str:
    """Where and with what something was measured, of a `client.perf.machine.Machine`'s fields."""
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in PACKAGES)
    return (
        f"{machine['date'][:10]}, commit {machine['commit']}; {machine['num_cores']} cores of "
        f"{machine['cpu']} ({machine['cpu_flags']}); Python {machine['python']}, "
        f"{versions}."
    )


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
