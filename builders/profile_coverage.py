"""Whether optimization profiles accept every shape that the generation loop asks for.

Profiles are ranges, and so is what the loop asks for at one batch size or source length: where
both ends of it are accepted, so is everything between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from builders.profiles import Profile, Shape, Step, max_entries, step_shapes
from kobart_runtime import bindings
from kobart_runtime.admission import SOURCE_STEP, round_up
from kobart_runtime.model_config import ModelShape
from kobart_runtime.scheduler import TOKENS_WHEN_IDLE
from kobart_runtime.settings import Limits

Shapes = dict[str, Shape]


def encoder_gap(profiles: Sequence[Profile], limits: Limits) -> str | None:
    """An encoder call that no profile accepts, if there is one."""
    return next(_refused(profiles, _encoder_calls(limits)), None)


def decoder_gap(profiles: Sequence[Profile], limits: Limits, shape: ModelShape) -> str | None:
    """A decode step that no profile accepts, if there is one."""
    return next(_refused(profiles, _decoder_calls(limits, shape)), None)


def _encoder_calls(limits: Limits) -> Iterator[list[Shapes]]:
    for length in range(1, limits.max_source_length + 1):
        most = max(1, min(limits.max_batch_size, TOKENS_WHEN_IDLE // length))
        yield [
            dict.fromkeys((bindings.INPUT_IDS, bindings.ATTENTION_MASK), (rows, length))
            for rows in dict.fromkeys((1, most))
        ]


def _decoder_calls(limits: Limits, shape: ModelShape) -> Iterator[list[Shapes]]:
    most_source = round_up(limits.max_source_length, SOURCE_STEP)
    for requests in range(1, limits.max_batch_size + 1):
        least = Step(requests, 1, 1, 1)
        most = Step(requests, limits.max_beams, max_entries(limits), most_source)
        yield [step_shapes(shape, least), step_shapes(shape, most)]


def _refused(profiles: Sequence[Profile], calls: Iterator[list[Shapes]]) -> Iterator[str]:
    """Those of the calls that no profile accepts, by their first differing inputs."""
    for ends in calls:
        for shapes in ends:
            if not any(_accepts(profile, shapes) for profile in profiles):
                few = {name: list(size) for name, size in list(shapes.items())[:4]}
                yield f"no optimization profile accepts {few}"


def _accepts(profile: Profile, shapes: Shapes) -> bool:
    return set(profile) == set(shapes) and all(
        len(sizes.min) == len(shape)
        and all(a <= b <= c for a, b, c in zip(sizes.min, shape, sizes.max, strict=True))
        for name, shape in shapes.items()
        for sizes in (profile[name],)
    )
