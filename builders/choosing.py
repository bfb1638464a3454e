"""How an int8 build chooses what CPUs run: by rules, or by the clock.

The rules go by the processor and by what is installed, so that two builds of one input choose the
same. `--tune` times the ways on this machine instead. Either way the accuracy gate has the last
word.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from builders.processor import Processor

AS_ASKED = "as asked"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of several ways, and why."""

    taken: str
    reason: str
    fell_back: bool = False  # the way that was to be taken is below the accuracy gate


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What a build chooses by."""

    processor: Processor
    tune: bool  # by the clock
    gate: float  # agreement that a way must have, 0..1; 0: random weights, which nobody judges


def dynamic_kind(processor: Processor) -> Choice:
    """Signed or unsigned weights of dynamic int8: names of `precision.py`."""
    if processor.has_vnni:
        reason = "rule: a processor with VNNI adds products of signed weights without saturating"
        return Choice(taken="dynamic", reason=reason)
    reason = "rule: without VNNI sums of signed weights saturate, those of unsigned ones do not"
    return Choice(taken="dynamic-unsigned", reason=reason)


def encoder_engine(processor: Processor, *, has_openvino: bool) -> Choice:
    """What runs the encoder."""
    if not processor.has_amx:
        reason = "rule: without AMX OpenVINO's encoder is the slower one"
        return Choice(taken="onnxruntime", reason=reason)
    if not has_openvino:
        reason = (
            "rule: on a processor with AMX OpenVINO's encoder is the faster one, but OpenVINO is "
            "not installed: pip install openvino"
        )
        return Choice(taken="onnxruntime", reason=reason)
    reason = "rule: on a processor with AMX OpenVINO's encoder is the faster one"
    return Choice(taken="openvino", reason=reason)


def cross_kv(processor: Processor) -> Choice:
    """How cross-attention keys and values are kept."""
    if processor.has_amx:
        reason = "rule: on a processor with AMX decode steps are faster with int8"
        return Choice(taken="int8", reason=reason)
    reason = "rule: int8 was measured on processors with AMX alone; --tune measures it here"
    return Choice(taken="float", reason=reason)


def settle(
    asked: str,
    rule: Choice,
    times: Mapping[str, float],
    unit: str,
    agreement: float,
    gate: float,
    *,
    default: str,
) -> Choice:
    """One of two ways, now that the one that is less exact has been measured.

    Args:
        asked: One of them, or "auto".
        rule: What is taken if that is "auto" and nothing was timed.
        times: Name -> milliseconds; empty: nothing was timed.
        unit: What they are the time of.
        agreement: Share of equal tokens with the less exact way, 0..1.
        gate: The lowest share that is accepted.
        default: The other way, which stands in for it.
    """
    if asked != "auto":
        return Choice(taken=asked, reason=AS_ASKED)
    choice = fastest(times, unit) if times else rule
    if choice.taken == default or agreement >= gate:
        return choice
    return Choice(
        taken=default,
        reason=f"{below_gate(choice.taken, agreement, gate)}: {default} instead",
        fell_back=True,
    )


def below_gate(name: str, agreement: float, gate: float) -> str:
    """Why a way is not taken."""
    return f"{name} agrees on {agreement:.2%} of the tokens, gate {gate:.1%}"


def fastest(times: Mapping[str, float], unit: str) -> Choice:
    """The way that took the least time.

    Args:
        times: Name -> milliseconds.
        unit: What they are the time of.
    """
    measured = ", ".join(f"{name} {ms} ms" for name, ms in times.items())
    return Choice(
        taken=min(times, key=lambda name: times[name]), reason=f"tune: {measured} a {unit}"
    )
