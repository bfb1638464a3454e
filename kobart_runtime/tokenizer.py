"""Text to source ids and generated ids to text, over the bare `tokenizers` library.

Control tokens (bos, eos, `<usr>`, `<unused0>` ...) exist for the model alone: a user who types
one gets its letters, and none is ever written into an answer. Every other added token (emoji,
emoticons, speaker tokens of a fine-tune) is ordinary text both ways. Line ends become LF first,
so that a text has one summary whichever system it was written on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer as Backend

from kobart_runtime.errors import CheckpointError, InvalidArgumentError
from kobart_runtime.model_config import TokenIds, TokenizerConfig
from kobart_runtime.newlines import to_lf
from kobart_runtime.tokenizer_guard import load_guarded

# Byte tokens of tokenizers with `byte_fallback`; several make one character.
BYTE_NAME = re.compile(r"<0x[0-9A-Fa-f]{2}>")
# A token whose text is its name, whatever the decoder: no space marks, no parts of characters.
WORD_NAME = re.compile(r"[0-9A-Za-z가-힣]+")


@dataclass(frozen=True)
class Source:
    """One text as the encoder takes it."""

    input_ids: np.ndarray  # int32[S], 1 <= S <= max_source_length
    truncated: bool  # the text had more tokens than max_source_length


class Tokenizer:
    """A checkpoint's `tokenizer.json` with its control tokens out of the user's reach.

    Safe to share between threads: nothing changes after construction. `encode` releases the
    GIL while the library works (`encode_batch_fast` does, the library's `encode` does not).
    """

    def __init__(
        self,
        path: Path,
        config: TokenizerConfig,
        ids: TokenIds,
        *,
        max_source_length: int,
        vocab_size: int,
    ) -> None:
        """Load a tokenizer and check that it fits the model.

        Args:
            path: A `tokenizer.json`.
            config: How text becomes source ids.
            ids: The checkpoint's special ids; those among the added tokens are control tokens.
            max_source_length: Most source ids, those of `add_bos` and `add_eos` included.
            vocab_size: Rows of the model's embedding.

        Raises:
            BuildError: The file cannot be read as a tokenizer.
            CheckpointError: The tokenizer would lose text, let control tokens in, or give ids
                that the model does not have.
        """
        self._backend, control_ids = load_guarded(path, ids)
        vocab = self._backend.get_vocab(with_added_tokens=True)
        _check_fits(path, vocab, vocab_size)
        self._text_ids = frozenset(vocab.values()) - control_ids
        self.byte_ids = frozenset(id_ for name, id_ in vocab.items() if BYTE_NAME.fullmatch(name))
        self._anchor_id = _anchor_id(path, vocab, self._text_ids)
        self._anchor_text = self._backend.decode([self._anchor_id])
        self._newline_as_space = config.newline == "space"
        self._prefix, self._suffix = _surroundings(self._backend, config, ids)
        self._max_text_ids = max_source_length - len(self._prefix) - len(self._suffix)
        if self._max_text_ids < 1:
            raise CheckpointError(
                f"max_source_length {max_source_length} leaves no room for text beside "
                f"{len(self._prefix) + len(self._suffix)} special ids: raise it"
            )

    def encode(self, text: str) -> Source:
        """Source ids of a text, cut on the right as transformers' `truncation=True` does.

        CRLF and CR are read as LF: the ids are those that transformers gives for that text.

        Raises:
            InvalidArgumentError: The text is blank, no valid Unicode, or leaves no token.
        """
        _check_text(text)
        text = to_lf(text)
        if self._newline_as_space:
            text = text.replace("\n", " ")
        ids = self._encode_plain(text)
        if not ids:
            raise InvalidArgumentError(
                "text_input has no tokens left after normalisation: send text with visible letters"
            )
        kept = [*self._prefix, *ids[: self._max_text_ids], *self._suffix]
        return Source(np.array(kept, dtype=np.int32), truncated=len(ids) > self._max_text_ids)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids; control tokens and ids without a token are left out."""
        return str(self._backend.decode(self.text_ids(ids), skip_special_tokens=False))

    def decode_behind(self, ids: Sequence[int]) -> str:
        """Text of ids that continue a text: as `decode`, but not as its beginning."""
        text = self._backend.decode(
            [self._anchor_id, *self.text_ids(ids)], skip_special_tokens=False
        )
        return str(text[len(self._anchor_text) :])

    def text_ids(self, ids: Sequence[int]) -> list[int]:
        """The ids that stand for text: no control tokens, none beyond the tokenizer's own."""
        return [int(id_) for id_ in ids if id_ in self._text_ids]

    def _encode_plain(self, text: str) -> list[int]:
        [encoding] = self._backend.encode_batch_fast([text], add_special_tokens=False)
        return list(encoding.ids)


def _check_fits(path: Path, vocab: Mapping[str, int], vocab_size: int) -> None:
    name, highest = max(vocab.items(), key=lambda entry: entry[1])
    if highest >= vocab_size:
        raise CheckpointError(
            f"{path} has token {name!r} with id {highest}, the model's vocabulary has "
            f"{vocab_size} entries: take the tokenizer that was saved with the checkpoint"
        )


def _anchor_id(path: Path, vocab: Mapping[str, int], text_ids: frozenset[int]) -> int:
    """An ordinary word to put before ids that are decoded as a continuation."""
    words = [id_ for name, id_ in vocab.items() if WORD_NAME.fullmatch(name) and id_ in text_ids]
    if not words:
        raise CheckpointError(f"{path} has no token made of letters: it is no text tokenizer")
    return min(words)


def _surroundings(
    backend: Backend, config: TokenizerConfig, ids: TokenIds
) -> tuple[list[int], list[int]]:
    """Ids before and after a text's own: the file's template, then `add_bos` and `add_eos`."""
    text = backend.encode("a", add_special_tokens=False).ids
    whole = backend.encode("a").ids
    start = next(i for i in range(len(whole)) if whole[i : i + len(text)] == text)
    prefix, suffix = whole[:start], whole[start + len(text) :]
    if config.add_bos:
        bos = _required("bos", ids.bos)
        prefix = prefix if bos in prefix else [bos, *prefix]
    if config.add_eos:
        eos = _required("eos", next(iter(ids.eos), None))
        suffix = suffix if eos in suffix else [*suffix, eos]
    return prefix, suffix


def _required(name: str, id_: int | None) -> int:
    if id_ is None:
        raise CheckpointError(
            f"add_{name} needs a {name} id, the checkpoint has none: leave it off"
        )
    return id_


def _check_text(text: str) -> None:
    if not text.strip():
        raise InvalidArgumentError("text_input is empty or blank: send some text")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidArgumentError(
            f"text_input is not valid Unicode: lone surrogate U+{ord(text[error.start]):04X} "
            f"at character {error.start}; send well-formed text"
        ) from error
