"""How busy the GPU is and how much of its memory is in use, while something runs."""

from __future__ import annotations

import subprocess
import threading
from types import TracebackType

from kobart_runtime.errors import BuildError

PERIOD_MS = 100
MB_IN_MIB = (1 << 20) / 1e6
_NVIDIA_SMI = (
    "nvidia-smi",
    "--id=0",
    "--query-gpu=utilization.gpu,memory.used",
    "--format=csv,noheader,nounits",
    f"--loop-ms={PERIOD_MS}",
)
_SECONDS_TO_ANSWER = 30.0


class GpuSampler:
    """Samples of the first GPU between entering and leaving a `with` block.

    One `nvidia-smi` tells its figures ten times a second; a thread collects them. It has told its
    first ones before the block begins, and tells once more before the block is left.

    Both figures are those of the whole GPU: other programs on it count too. nvidia-smi's
    utilization is the share of the last moments (1/6 s to 1 s, by product) in which a kernel ran.
    """

    def __init__(self) -> None:
        self.samples: list[tuple[float, float]] = []  # utilization in %, memory in use in MB

    def __enter__(self) -> GpuSampler:
        """Start sampling.

        Raises:
            BuildError: nvidia-smi does not answer.
        """
        self.samples = []
        try:
            self._program = subprocess.Popen(
                _NVIDIA_SMI, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        except OSError as error:
            raise BuildError(f"nvidia-smi does not tell the GPU's use: {error}") from error
        self._told = threading.Event()
        self._strange = ""  # what it said that is no figure
        self._reader = threading.Thread(target=self._collect, daemon=True)
        self._reader.start()
        try:
            self._await_sample()
        except BuildError:
            self._stop()
            raise
        self.samples.clear()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop sampling.

        Raises:
            BuildError: nvidia-smi has stopped to answer.
        """
        try:
            if kind is None:
                self._await_sample()
        finally:
            self._stop()

    def figures(self) -> dict[str, float]:
        """`gpu_utilization`, the mean in %, and `memory_mb`, the most that was in use, in MB."""
        utilizations, memories = zip(*self.samples, strict=True)
        return {
            "gpu_utilization": sum(utilizations) / len(utilizations),
            "memory_mb": max(memories),
        }

    def _await_sample(self) -> None:
        self._told.clear()
        # It may have ended already, and will then tell nothing more.
        if self._strange or not self._told.wait(_SECONDS_TO_ANSWER) or self._strange:
            said = self._strange or f"no line within {_SECONDS_TO_ANSWER:.0f} s"
            raise BuildError(f"nvidia-smi does not tell the GPU's use: {said}")

    def _collect(self) -> None:
        assert self._program.stdout
        for line in self._program.stdout:
            try:
                utilization, memory_mib = map(float, line.split(","))
            except ValueError:
                self._strange = line.strip()
                break
            self.samples.append((utilization, memory_mib * MB_IN_MIB))
            self._told.set()
        self._strange = self._strange or "it ended"
        self._told.set()

    def _stop(self) -> None:
        self._program.kill()
        self._program.wait()
        self._reader.join()
        assert self._program.stdout
        self._program.stdout.close()
