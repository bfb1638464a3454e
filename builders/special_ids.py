"""Which ids begin, end and force a summary: read from the checkpoint, never assumed.

Two incompatible families of KoBART exist (start and forced eos 1, or 2 = `<usr>`), and where the
two keys are absent transformers 4 and 5 disagree. Ours is what `generate()` of the installed
transformers does; every doubt becomes a warning line that names the flag.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from builders.checkpoint_files import CheckpointFiles
from kobart_runtime.errors import CheckpointError, ConfigError
from kobart_runtime.model_config import TokenIds

# BartConfig's class default, which transformers 4 puts where a checkpoint says nothing.
CLASS_DEFAULT_ID = 2


@dataclass(frozen=True, kw_only=True)
class IdOverrides:
    """Ids given on the command line; None leaves the checkpoint's."""

    decoder_start: int | None = None
    forced_eos: int | None = None


def resolve_ids(
    files: CheckpointFiles, overrides: IdOverrides, vocab_size: int
) -> tuple[TokenIds, tuple[str, ...]]:
    """Resolve the special ids as `generate()` would.

    Returns:
        The ids, and warning lines where the checkpoint leaves room for doubt.

    Raises:
        CheckpointError: An id is missing or outside the vocabulary.
        ConfigError: An override is outside the vocabulary.
    """
    _check_overrides(overrides, vocab_size)
    eos = _eos_ids(files)
    read = files.read_by_generate
    bos, pad = _single_id(read, "bos_token_id"), _single_id(read, "pad_token_id")
    start, start_warnings = _decoder_start(files, overrides, bos)
    forced_eos, forced_warnings = _forced_eos(files, overrides)
    ids = TokenIds(
        bos=bos,
        eos=eos,
        pad=eos[0] if pad is None else pad,  # as generate() pads when no pad id is given
        decoder_start=start,
        forced_bos=_single_id(read, "forced_bos_token_id"),
        forced_eos=forced_eos,
    )
    _check_vocabulary(ids, vocab_size)
    return ids, start_warnings + forced_warnings + _forced_bos_warnings(files, ids)


def _decoder_start(
    files: CheckpointFiles, overrides: IdOverrides, bos: int | None
) -> tuple[int, tuple[str, ...]]:
    if overrides.decoder_start is not None:
        return overrides.decoder_start, ()
    given = _single_id(files.read_by_generate, "decoder_start_token_id")
    if given is not None:
        return given, ()
    if bos is None:
        raise CheckpointError(
            "the checkpoint names neither decoder_start_token_id nor bos_token_id: "
            "give --decoder-start-token-id"
        )
    named = _single_id(files.config, "decoder_start_token_id")
    other = CLASS_DEFAULT_ID if named is None else named
    return bos, (
        "the checkpoint gives generate() no decoder_start_token_id: summaries start from bos "
        f"({bos}), as the installed transformers does; its training may have used {other} "
        f"(config.json or transformers 4): if summaries begin wrongly, build with "
        f"--decoder-start-token-id {other}",
    )


def _forced_eos(
    files: CheckpointFiles, overrides: IdOverrides
) -> tuple[int | None, tuple[str, ...]]:
    if overrides.forced_eos is not None:
        return overrides.forced_eos, ()
    given = _single_id(files.read_by_generate, "forced_eos_token_id")
    other = _single_id(files.config, "forced_eos_token_id")
    if other is None and files.generation_config is None:
        other = CLASS_DEFAULT_ID
    if given is not None or other is None:
        return given, ()
    return None, (
        "the checkpoint gives generate() no forced_eos_token_id: no token is forced at the "
        f"length limit, as the installed transformers does; transformers 4 may have forced {other}"
        f": for that, build with --forced-eos-token-id {other}",
    )


def _forced_bos_warnings(files: CheckpointFiles, ids: TokenIds) -> tuple[str, ...]:
    if not files.config.get("force_bos_token_to_be_generated") or ids.forced_bos is not None:
        return ()
    return (
        "config.json sets force_bos_token_to_be_generated, which the installed transformers "
        "ignores: no first token is forced; set forced_bos_token_id in the checkpoint for that",
    )


def _eos_ids(files: CheckpointFiles) -> tuple[int, ...]:
    value = files.read_by_generate.get("eos_token_id")
    ids = tuple(value) if isinstance(value, list) else () if value is None else (value,)
    if not ids:
        raise CheckpointError("the checkpoint names no eos_token_id: add it to its config.json")
    for token_id in ids:
        _require_int("eos_token_id", token_id)
    return ids


def _single_id(settings: Mapping[str, Any], key: str) -> int | None:
    value = settings.get(key)
    if isinstance(value, list):
        if len(value) != 1:
            raise CheckpointError(f"{key} must be one id, got {value}: set one in the checkpoint")
        value = value[0]
    if value is not None:
        _require_int(key, value)
    return value


def _require_int(key: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise CheckpointError(f"{key} must be an integer, got {value!r}: correct the checkpoint")


def _check_vocabulary(ids: TokenIds, vocab_size: int) -> None:
    named = [(name, getattr(ids, name)) for name in ("bos", "pad", "decoder_start")]
    named += [("forced_bos", ids.forced_bos), ("forced_eos", ids.forced_eos)]
    named += [("eos", token_id) for token_id in ids.eos]
    for name, token_id in named:
        if token_id is not None and not 0 <= token_id < vocab_size:
            raise CheckpointError(
                f"the checkpoint's {name} id must be 0..{vocab_size - 1}, got {token_id}"
            )


def _check_overrides(overrides: IdOverrides, vocab_size: int) -> None:
    for flag, token_id in (
        ("--decoder-start-token-id", overrides.decoder_start),
        ("--forced-eos-token-id", overrides.forced_eos),
    ):
        if token_id is not None and not 0 <= token_id < vocab_size:
            raise ConfigError(f"{flag} must be 0..{vocab_size - 1}, got {token_id}")
