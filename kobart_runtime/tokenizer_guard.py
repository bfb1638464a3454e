"""Reads a `tokenizer.json` so that no typed text can become a control token."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer as Backend

from kobart_runtime.errors import BuildError, CheckpointError
from kobart_runtime.model_config import TokenIds

# Names that mean control in every KoBART checkpoint, whatever ids a fine-tune gave them.
CONTROL_NAME = re.compile(r"</?s>|<(?:usr|pad|sys|unk|mask|unused\d+)>")


def load_guarded(path: Path, ids: TokenIds) -> tuple[Backend, frozenset[int]]:
    """Load a tokenizer with its control tokens out of the user's reach.

    Args:
        path: A `tokenizer.json`.
        ids: The checkpoint's special ids; those among the added tokens are control tokens.

    Returns:
        The tokenizer, which reads a typed control token as plain text and gives the ids of the
        file for all other text, and the ids of the control tokens.

    Raises:
        BuildError: The file cannot be read as a tokenizer.
        CheckpointError: The tokenizer would lose text or let control tokens in.
    """
    definition = _read(path)
    control_ids = _control_ids(definition, ids)
    backend = _load(_guard(definition, control_ids))
    _check_out_of_reach(path, backend, control_ids)
    return backend, control_ids


def _read(path: Path) -> dict[str, Any]:
    """The definition in the library's own newest form, known to lose no character."""
    try:
        definition: dict[str, Any] = json.loads(Backend.from_file(str(path)).to_str())
    except Exception as error:  # the library raises bare Exception
        raise BuildError(f"{path} cannot be read as a tokenizer: {error}; build again") from error
    model = definition["model"]
    if model["type"] != "BPE":
        raise CheckpointError(
            f"{path} is a {model['type']} tokenizer; only BPE, KoBART's kind, is supported"
        )
    if model["unk_token"] not in model["vocab"] and not model["byte_fallback"]:
        raise CheckpointError(
            f"{path} has unk_token {model['unk_token']!r}: unknown characters would vanish "
            "without a word; take the tokenizer.json of a newer KoBART release"
        )
    return definition


def _control_ids(definition: Mapping[str, Any], ids: TokenIds) -> frozenset[int]:
    """Ids of control tokens: by name, and the checkpoint's special ids that are added tokens.

    A stop token that is an ordinary word (some checkpoints list one in eos) stays text.
    """
    model = definition["model"]
    added = {token["content"]: token["id"] for token in definition["added_tokens"]}
    named = {
        id_
        for name, id_ in {**model["vocab"], **added}.items()
        if CONTROL_NAME.fullmatch(name) or name == model["unk_token"]
    }
    special = {*ids.eos, ids.bos, ids.pad, ids.decoder_start, ids.forced_bos, ids.forced_eos}
    return frozenset(named.union(id_ for id_ in added.values() if id_ in special))


def _guard(definition: dict[str, Any], control_ids: frozenset[int]) -> dict[str, Any]:
    """The definition with control tokens, and they alone, flagged special.

    The library can be told to read special tokens as plain text, and ids stay as they are.
    Merges that would spell a control token (full-width `＜ｓ＞` is normalised to it) are dropped.
    """
    for token in definition["added_tokens"]:
        token["special"] = token["id"] in control_ids
    model = definition["model"]
    spelled = {name for name, id_ in model["vocab"].items() if id_ in control_ids}
    model["merges"] = [merge for merge in model["merges"] if "".join(merge) not in spelled]
    return definition


def _load(definition: Mapping[str, Any]) -> Backend:
    backend = Backend.from_str(json.dumps(definition))
    # A checkpoint saved after a padded call carries that call's settings.
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = True
    return backend


def _check_out_of_reach(path: Path, backend: Backend, control_ids: frozenset[int]) -> None:
    """Try each control token as text: whole-word models may find it without any merge."""
    unknown = backend.model.unk_token
    for id_ in control_ids:
        name = backend.id_to_token(id_)
        if name != unknown and id_ in backend.encode(name, add_special_tokens=False).ids:
            raise CheckpointError(
                f"{path} turns the typed text {name!r} into control token {id_}: "
                "it cannot be served to untrusted users"
            )
