"""A report's files: written whole, or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from client.report.document import Report
from client.report.page import to_html
from client.report.plain import to_csv, to_markdown
from kobart_runtime.errors import ConfigError

JSON_FILE = "report.json"
_PROBE = ".writable"


def prepare_folder(folder: Path) -> None:
    """Make the folder, before anything is measured that could then not be kept.

    Raises:
        ConfigError: It cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / _PROBE
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"the output folder {folder} cannot be written ({error.strerror}): "
            "choose another --output"
        ) from error


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write all four forms; returns their paths, the page last."""
    contents = {
        JSON_FILE: report.to_json(),
        "report.csv": to_csv(report),
        "report.md": to_markdown(report),
        "report.html": to_html(report),
    }
    return [write_whole(folder / name, content) for name, content in contents.items()]


def write_whole(path: Path, content: str) -> Path:
    """Write a file under another name first, so that nobody sees half of it.

    Raises:
        ConfigError: It cannot be written.
    """
    staged = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        staged.write_text(content, encoding="utf-8")
        staged.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror})") from error
    return path
