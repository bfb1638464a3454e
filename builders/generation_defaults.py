"""A checkpoint's generation settings: the defaults of a build, and what it cannot be asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from builders.checkpoint_files import CONFIG_FILE, GENERATION_FILE, CheckpointFiles
from kobart_runtime.errors import CheckpointError, InvalidArgumentError
from kobart_runtime.settings import GenerationSettings, Limits

# Setting -> values that leave the output alone (null always does). Settings that only matter
# when sampling (temperature, top_k, top_p, ...) are not here: do_sample itself is refused.
UNSUPPORTED: dict[str, tuple[object, ...]] = {
    "assistant_early_exit": (),
    "bad_words_ids": ([],),
    "begin_suppress_tokens": ([],),
    "constraints": ([],),
    "diversity_penalty": (0,),
    "do_sample": (False,),
    "dola_layers": (),
    "encoder_no_repeat_ngram_size": (0,),
    "encoder_repetition_penalty": (1,),
    "exponential_decay_length_penalty": (),
    "force_words_ids": ([],),
    "guidance_scale": (1,),
    "max_time": (),
    "num_beam_groups": (1,),
    "num_return_sequences": (1,),
    "penalty_alpha": (0,),
    "prompt_lookup_num_tokens": (),
    "remove_invalid_values": (False,),
    "renormalize_logits": (False,),
    "sequence_bias": ([], {}),
    "stop_strings": ([],),
    "suppress_tokens": ([],),
    "token_healing": (False,),
    "use_mtp": (False,),
    "watermarking_config": (),
}
INTEGERS = ("num_beams", "no_repeat_ngram_size")
FLOATS = ("repetition_penalty", "length_penalty")


def resolve_defaults(files: CheckpointFiles) -> GenerationSettings:
    """Settings from generation_config.json, else config.json, else its summarization task.

    Raises:
        CheckpointError: A setting is not supported or not of its type.
    """
    sources = list(_sources(files))
    for name, neutral in UNSUPPORTED.items():
        _refuse_unsupported(sources, name, neutral)
    found: dict[str, Any] = {
        "max_new_tokens": _new_tokens(sources, "max"),
        "min_new_tokens": _new_tokens(sources, "min"),
        "early_stopping": _early_stopping(sources),
    }
    found |= {name: _number(sources, name, int) for name in INTEGERS}
    found |= {name: _number(sources, name, float) for name in FLOATS}
    given = {name: value for name, value in found.items() if value is not None}
    return replace(GenerationSettings(), **given)


def fit_defaults(
    defaults: GenerationSettings, limits: Limits
) -> tuple[GenerationSettings, tuple[str, ...]]:
    """Lower defaults that are above a build's limits.

    Returns:
        The settings, and a line for each one that was lowered.

    Raises:
        CheckpointError: A default is out of range in another way.
    """
    notes = []
    for name, limit_name in (("num_beams", "max_beams"), ("max_new_tokens", "max_target_length")):
        value, limit = getattr(defaults, name), getattr(limits, limit_name)
        if value > limit:
            defaults = replace(defaults, **{name: limit})
            notes.append(
                f"the default {name} is lowered from {value} to {limit}, this build's {limit_name}"
            )
    try:
        defaults.check(limits)
    except InvalidArgumentError as error:
        raise CheckpointError(f"the checkpoint's generation settings: {error}") from error
    return defaults, tuple(notes)


def _sources(files: CheckpointFiles) -> Iterator[tuple[str, dict[str, Any]]]:
    yield GENERATION_FILE, files.generation_config or {}
    yield CONFIG_FILE, files.config
    tasks = files.config.get("task_specific_params") or {}
    yield f"{CONFIG_FILE} task_specific_params.summarization", tasks.get("summarization") or {}


Sources = list[tuple[str, dict[str, Any]]]


def _find(sources: Sources, name: str) -> tuple[str, Any]:
    """Place and value of the first source that sets `name`; the value is None if none does."""
    for place, settings in sources:
        if settings.get(name) is not None:
            return place, settings[name]
    return "", None


def _refuse_unsupported(sources: Sources, name: str, neutral: tuple[object, ...]) -> None:
    place, value = _find(sources, name)
    if value is not None and value not in neutral:
        raise CheckpointError(
            f"{place} sets {name} to {value!r}, which is not supported and would change the "
            "output: remove it from the checkpoint"
        )


def _new_tokens(sources: Sources, bound: str) -> int | None:
    """HF's `max_length` and `min_length` count the decoder start token, `*_new_tokens` do not."""
    for source in sources:
        new_tokens = _number([source], f"{bound}_new_tokens", int)
        if new_tokens is not None:
            return new_tokens
        length = _number([source], f"{bound}_length", int)
        if length is not None:
            return max(length - 1, 0)
    return None


def _early_stopping(sources: Sources) -> bool | None:
    place, value = _find(sources, "early_stopping")
    if value is not None and not isinstance(value, bool):
        raise CheckpointError(
            f"{place} sets early_stopping to {value!r}, which is not supported: "
            "set true or false in the checkpoint"
        )
    return value


def _number(sources: Sources, name: str, kind: type[int] | type[float]) -> Any:
    place, value = _find(sources, name)
    if value is None:
        return None
    accepted = (int,) if kind is int else (int, float)
    if not isinstance(value, accepted) or isinstance(value, bool):
        wanted = "an integer" if kind is int else "a number"
        raise CheckpointError(f"{place} sets {name} to {value!r}, it must be {wanted}")
    return kind(value)
