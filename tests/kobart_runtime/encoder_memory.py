"""What a large encode takes of memory, and what is kept of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def taken_and_kept(build: Path, encoder_engine: str) -> tuple[int, int]:
    """KiB that an encode of 8 x 512 tokens adds, and those left after `give_back_freed`.

    In a process of its own, which nothing else has grown.
    """
    code = f"""
import numpy as np
from dataclasses import replace
from pathlib import Path
from kobart_runtime.model_config import ModelConfig
from kobart_runtime.runners import open_runner

def resident_kib():
    line = next(x for x in open("/proc/self/status") if x.startswith("RssAnon"))
    return int(line.split()[1])

build = Path({str(build)!r})
config = ModelConfig.from_manifest(build / "manifest.json")
runner = open_runner(build / "kobart/1", replace(config.engines, encoder_engine={encoder_engine!r}))
one = np.ones((1, 1), np.int32)
runner.encode(one, one)
runner.give_back_freed()
at_rest = resident_kib()
runner.encode(np.ones((8, 512), np.int32), np.ones((8, 512), np.int32))
busy = resident_kib()
runner.give_back_freed()
print(busy - at_rest, resident_kib() - at_rest)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    taken, kept = map(int, done.stdout.split())
    return taken, kept
