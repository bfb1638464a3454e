"""The processor of this machine: its name, and which instructions for products it has."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# What the engines' int8 kernels differ by, as Linux names it.
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


@dataclass(frozen=True, kw_only=True)
class Processor:
    """What the rules of an int8 build go by; stands in the manifest."""

    name: str
    flags: tuple[str, ...]  # those of FLAGS that it has

    @classmethod
    def read(cls, cpuinfo: Path = CPUINFO) -> Processor:
        """Ask the system; elsewhere than on Linux no instructions are known.

        Args:
            cpuinfo: Where Linux describes its processors.
        """
        text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.is_file() else ""
        name, flags = (
            re.search(rf"^{key}\s*:\s*(.+)$", text, re.MULTILINE) for key in ("model name", "flags")
        )
        known = flags[1].split() if flags else []
        return cls(
            name=name[1] if name else platform.processor() or platform.machine(),
            flags=tuple(flag for flag in FLAGS if flag in known),
        )

    @property
    def has_amx(self) -> bool:
        """Whether it has matrix units for int8."""
        return "amx_int8" in self.flags

    @property
    def has_vnni(self) -> bool:
        """Whether it adds products of bytes in 32 bits, in one instruction."""
        return bool({"avx512_vnni", "avx_vnni", "amx_int8"} & {*self.flags})
