"""Graphs that one machine prepares and another builds plans from: a folder with a `plans.json`.

Standard library alone, so that the other machine needs neither PyTorch nor ONNX.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from builders.profiles import Profile, ShapeRange
from kobart_runtime.errors import ConfigError

JOBS_FILE = "plans.json"
JOBS_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class PlanJob:
    """One plan to build; files are named within the folder."""

    graph: str
    plan: str
    precision: str  # of the graph
    profiles: list[Profile]
    sparse_weights: bool = False


def write_jobs(folder: Path, jobs: Sequence[PlanJob]) -> None:
    """Write `plans.json` beside the graphs."""
    content = {"format": JOBS_FORMAT, "plans": [asdict(job) for job in jobs]}
    (folder / JOBS_FILE).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_jobs(folder: Path) -> list[PlanJob]:
    """Read `plans.json`.

    Raises:
        ConfigError: It is missing or malformed, or a graph is not there.
    """
    path = folder / JOBS_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != JOBS_FORMAT:
            raise ValueError(f"format {content['format']}, this version reads {JOBS_FORMAT}")
        jobs = [PlanJob(**{**job, "profiles": _profiles(job)}) for job in content["plans"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is no list of plans ({error!r}): prepare it again") from error
    for job in jobs:
        if not (folder / job.graph).is_file():
            raise ConfigError(f"{folder / job.graph} is missing: copy the whole folder")
    return jobs


def _profiles(job: dict[str, Any]) -> list[Profile]:
    return [
        {
            name: ShapeRange(*(tuple(sizes[end]) for end in ("min", "opt", "max")))
            for name, sizes in profile.items()
        }
        for profile in job["profiles"]
    ]
