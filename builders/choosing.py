"""The faster of two ways on this machine, where both are exact enough."""

from __future__ import annotations

from collections.abc import Mapping

from builders.precision import AGREEMENT_GATES


def faster_of_two(
    asked: str, agreement: float, times: Mapping[str, float], unit: str
) -> tuple[str, str]:
    """What an int8 build takes, and why.

    Args:
        asked: The second of the two, or "auto".
        agreement: Share of equal tokens with the second, 0..1; the first is taken where that
            is too low.
        times: Name -> milliseconds, of the two.
        unit: What they are the time of.
    """
    first, second = times
    if asked == second:
        return second, "as asked"
    gate = AGREEMENT_GATES["int8"]
    if agreement < gate:
        return first, f"auto: {second} agrees on {agreement:.2%}, gate {gate:.1%}"
    told = ", ".join(f"{name} {ms} ms" for name, ms in times.items())
    return min(times, key=lambda name: times[name]), f"auto: {told} a {unit}"
