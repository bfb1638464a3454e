"""What an interrupted fine-tuning leaves behind, and when another may go on from it.

The folder `.NAME.training` beside the output holds `start.json`, written before the first step,
and the Trainer's `checkpoint-STEP` folders. It goes when the output is complete.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kobart_runtime.errors import ConfigError

START_FILE = "start.json"
STATE_FILE = "trainer_state.json"  # the last file of a checkpoint that the Trainer writes
STEP_FOLDER = re.compile(r"checkpoint-(\d+)")


class Run:
    """One fine-tuning's working folder."""

    def __init__(self, output: Path) -> None:
        """Name the folder that belongs to an output; nothing is written yet."""
        self.folder = output.parent / f".{output.name}.training"

    @property
    def is_begun(self) -> bool:
        """There is something to resume."""
        return (self.folder / START_FILE).is_file()

    def begin(self, inputs: Mapping[str, Any], measured: Mapping[str, Any]) -> None:
        """Write what the run was started from and what was measured before it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        text = json.dumps({"inputs": inputs, "measured": measured}, ensure_ascii=False)
        partial = self.folder / f"{START_FILE}.tmp"
        partial.write_text(text, encoding="utf-8")
        partial.replace(self.folder / START_FILE)

    def resume(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """What was measured before the first step.

        Raises:
            ConfigError: There is no such run, or it was started from something else.
        """
        if not self.is_begun:
            raise ConfigError(f"there is no run to resume ({self.folder}): leave out --resume")
        start = json.loads((self.folder / START_FILE).read_text(encoding="utf-8"))
        then, now = start["inputs"], json.loads(json.dumps(inputs))
        differences = list(_differences("", then, now))
        if differences:
            raise ConfigError(
                f"the run to resume had {', '.join(differences)}: resume with the same, or start "
                "anew with --force and without --resume"
            )
        measured: dict[str, Any] = start["measured"]
        return measured

    @property
    def last_checkpoint(self) -> Path | None:
        """The newest complete checkpoint; None: the run was interrupted before the first."""
        steps = {
            int(found[1]): path
            for path in self.folder.iterdir()
            if (found := STEP_FOLDER.fullmatch(path.name)) and _is_json(path / STATE_FILE)
        }
        return steps[max(steps)] if steps else None

    def end(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _differences(path: str, then: Any, now: Any) -> Iterator[str]:
    """Each value that is not the same in two JSON objects, by its dotted name."""
    if isinstance(then, dict) and isinstance(now, dict):
        for name in sorted({*then, *now}):
            yield from _differences(f"{path}.{name}", then.get(name), now.get(name))
    elif then != now:
        yield f"{path.removeprefix('.')} {then!r}, not {now!r}"


def _is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return True
