"""Find a checkpoint's tokenizer, and refuse one that lacks tokens which the checkpoint names.

One form is served: a complete `tokenizer.json`. Nothing is converted: `vocab.json` and `merges.txt`
do not tell which tokens are special, how text is normalised or where it is split, and KoBART's
merges hold line breaks, which `merges.txt` cannot. Nothing is written into a checkpoint either.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from builders.checkpoint_files import (
    ADDED_TOKENS_FILE,
    TOKENIZER_CONFIG_FILE,
    VOCABULARY_FILE,
    CheckpointFiles,
    find_folder,
    read_json,
)
from kobart_runtime.errors import CheckpointError
from kobart_runtime.model_config import TOKENIZER_FILE

KOBART = "gogamza/kobart-base-v2"  # its tokenizer is that of all KoBART checkpoints
UNKNOWN = "<unk>"
SHOWN_TOKENS = 5


def find_tokenizer(files: CheckpointFiles, asked: str | None) -> Path:
    """The tokenizer of a build: the one asked for, or the checkpoint's own.

    Args:
        files: The checkpoint.
        asked: A `tokenizer.json` under any name, or a folder that holds one; None: the
            checkpoint's.

    Returns:
        The file, which has every token that the files of the checkpoint name, with their ids.

    Raises:
        CheckpointError: There is none, or it does not fit the checkpoint; tells how to get one.
    """
    path = _locate(files, asked)
    definition = read_json(path) or {}
    if not _is_tokenizer(definition):
        raise CheckpointError(
            f"{path} is no tokenizer.json: it must hold a tokenizer of the tokenizers library"
        )
    _check_unknown(path, definition["model"])
    folders = [files.folder, path.parent] if asked else [files.folder]
    for folder in dict.fromkeys(folders):
        for place, named in _named_tokens(folder):
            _check_has(path, definition, place, named)
    if asked:
        for place, vocab in _vocabularies(files.folder):
            _check_has(path, definition, place, vocab)
    return path


def _locate(files: CheckpointFiles, asked: str | None) -> Path:
    path = files.folder if asked is None else Path(asked)
    if path.is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(
            f"--tokenizer {asked} does not exist: give a tokenizer.json, or a folder with one"
        )
    if not (path / TOKENIZER_FILE).is_file():
        raise CheckpointError(_how_to_get_one(path, files.config))
    return path / TOKENIZER_FILE


def _how_to_get_one(folder: Path, config: Mapping[str, Any]) -> str:
    """What to do about a folder without `tokenizer.json`, as far as its files tell."""
    for path in sorted([*folder.glob("*.json"), *folder.glob("*/*.json")]):
        if _is_tokenizer(_read_anything(path)):
            return (
                f"{folder} has no {TOKENIZER_FILE}, but {path} is one under another name: give "
                f"--tokenizer {shlex.quote(str(path))}"
            )
    has_vocabulary = any(_vocabularies(folder))
    reason = (
        " and its vocabulary and merges do not tell how text is split and which tokens are special"
        if has_vocabulary
        else ", the one form that is served"
    )
    origin = config.get("_name_or_path") or KOBART
    if (Path(origin) / TOKENIZER_FILE).is_file():
        return (
            f"{folder} has no {TOKENIZER_FILE}{reason}: give that of the checkpoint it was trained "
            f"from, --tokenizer {shlex.quote(str(origin))}"
        )
    origin = origin if _is_hub_id(origin) else KOBART
    return (
        f"{folder} has no {TOKENIZER_FILE}{reason}: give that of the checkpoint it was trained "
        f"from, `hf download {origin} {TOKENIZER_FILE} --local-dir tokenizer` and then --tokenizer "
        "tokenizer"
    )


def _is_hub_id(name: str) -> bool:
    try:
        return "/" in name and find_folder(name) is None
    except CheckpointError:
        return False


def _check_unknown(path: Path, model: Mapping[str, Any]) -> None:
    """Refuse the files of KoBART's first releases, which drop what they do not know."""
    vocab = model["vocab"]
    is_lossy = model.get("unk_token") is None and not model.get("byte_fallback")
    if is_lossy and isinstance(vocab, dict) and UNKNOWN in vocab:
        copy = "tokenizer-with-unk.json"
        edit = f's/"unk_token": *null/"unk_token": "{UNKNOWN}"/'
        raise CheckpointError(
            f"{path} has no unk_token, so that unknown characters would vanish, though its "
            f"vocabulary has {UNKNOWN}: write a copy that has one, `sed {shlex.quote(edit)} "
            f"{shlex.quote(str(path))} > {copy}`, and give --tokenizer {copy}"
        )


def _check_has(
    path: Path, definition: Mapping[str, Any], place: Path, named: Mapping[str, int | None]
) -> None:
    """Refuse a tokenizer without tokens that another file of the checkpoint names."""
    if not isinstance(definition["model"]["vocab"], dict):
        return  # no BPE: refused when it is opened
    known = _ids(definition)
    lacking = {
        token: id_
        for token, id_ in named.items()
        if token not in known or id_ not in (None, known[token])
    }
    if not lacking:
        return
    shown = [
        repr(token) if id_ is None else f"{token!r} with id {id_}" for token, id_ in lacking.items()
    ]
    more = f" and {len(shown) - SHOWN_TOKENS} more" if len(shown) > SHOWN_TOKENS else ""
    if place.parent == path.parent and not any(token in known for token in lacking):
        complete = (
            "from transformers import PreTrainedTokenizerFast as T; "
            f"T.from_pretrained({str(path.parent)!r}).save_pretrained('tokenizer')"
        )
        command = f"python -c {shlex.quote(complete)}"
        remedy = f"write a complete one, `{command}`, and give --tokenizer tokenizer"
    else:
        remedy = "give --tokenizer the tokenizer that this checkpoint was trained with"
    raise CheckpointError(
        f"{path} lacks {', '.join(shown[:SHOWN_TOKENS])}{more}, which {place} names: they would be "
        f"read as letters and left out of summaries; {remedy}"
    )


def _ids(definition: Mapping[str, Any]) -> dict[str, int]:
    added = {token["content"]: token["id"] for token in definition["added_tokens"]}
    return {**definition["model"]["vocab"], **added}


def _named_tokens(folder: Path) -> Iterator[tuple[Path, dict[str, int | None]]]:
    """Tokens that files beside `tokenizer.json` name; id None: they tell the name alone."""
    added, config = folder / ADDED_TOKENS_FILE, folder / TOKENIZER_CONFIG_FILE
    yield added, dict(read_json(added) or {})
    fields = read_json(config) or {}
    try:
        named: dict[str, int | None] = {}
        for key in ("additional_special_tokens", "extra_special_tokens"):
            tokens = fields.get(key) or ()
            tokens = tokens.values() if isinstance(tokens, dict) else tokens
            named |= dict.fromkeys(_content(token) for token in tokens)
        decoder = fields.get("added_tokens_decoder") or {}
        named |= {_content(token): int(id_) for id_, token in decoder.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{config} names its tokens in no known way ({error!r})") from error
    yield config, named


def _content(token: Any) -> str:
    """Of a token that is written as its text, or as an object with all its flags."""
    return str(token["content"] if isinstance(token, dict) else token)


def _vocabularies(folder: Path) -> Iterator[tuple[Path, dict[str, int]]]:
    """Names and ids in a checkpoint's own `tokenizer.json` and `vocab.json`."""
    own = folder / TOKENIZER_FILE
    definition = _read_anything(own)
    if _is_tokenizer(definition) and isinstance(definition["model"]["vocab"], dict):
        yield own, _ids(definition)
    for pattern in (f"*{VOCABULARY_FILE}", f"*/*{VOCABULARY_FILE}"):
        for path in sorted(folder.glob(pattern)):
            vocab = _read_anything(path)
            if vocab and all(isinstance(id_, int) for id_ in vocab.values()):
                yield path, vocab


def _is_tokenizer(definition: Mapping[str, Any]) -> bool:
    model = definition.get("model")
    return isinstance(model, dict) and "vocab" in model and "added_tokens" in definition


def _read_anything(path: Path) -> dict[str, Any]:
    """A JSON object, or nothing where the file is none."""
    try:
        return read_json(path) or {}
    except CheckpointError:
        return {}
