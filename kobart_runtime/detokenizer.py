"""Generated ids to text while they come: only text that no later token can change.

Two things can change a text at its end. Tokens may be parts of one character (byte tokens), and
characters may be parts of one that a reader sees (jamo of a syllable, marks, emoji sequences).
The first is settled on ids, the second on the text.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from kobart_runtime.tokenizer import Tokenizer

ZERO_WIDTH_NON_JOINER, ZERO_WIDTH_JOINER = "\u200c", "\u200d"
REPLACEMENT_CHARACTER = "\ufffd"
VIRAMA = 9  # canonical combining class of the signs that fuse two consonants


class StreamingDetokenizer:
    """One answer's text, piece by piece; the joined pieces equal `Tokenizer.decode` of all ids.

    A piece ends where a grapheme cluster ends, so the last visible character waits for the next
    token. The cost of a push does not depend on how much was pushed before.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._is_first = True
        self._undecoded: list[int] = []  # parts of characters that are not complete
        self._held = ""  # the last grapheme cluster: the next token may extend it

    def push(self, ids: Sequence[int]) -> str:
        """Add generated ids.

        Args:
            ids: int[N], N >= 0, control tokens allowed.

        Returns:
            The text that is now certain not to change, perhaps empty.
        """
        text = self._decode_complete(self._tokenizer.text_ids(ids))
        first_new = len(self._held)
        self._held += text
        cut = _last_boundary(self._held, first_new)
        piece, self._held = self._held[:cut], self._held[cut:]
        return piece

    def finish(self) -> str:
        """The rest of the text; the answer has ended."""
        piece = self._held + self._decode(self._undecoded)
        self._held, self._undecoded = "", []
        return piece

    def _decode_complete(self, ids: list[int]) -> str:
        """Text up to the last token that ends a character.

        A run of byte tokens is decoded as one: an invalid byte spoils the whole run.
        """
        byte_ids = self._tokenizer.byte_ids
        num_open = next((n for n, id_ in enumerate(reversed(ids)) if id_ not in byte_ids), len(ids))
        split = len(ids) - num_open
        if split == 0:
            self._undecoded += ids
            return ""
        text = self._decode([*self._undecoded, *ids[:split]])
        if text.endswith(REPLACEMENT_CHARACTER):
            self._undecoded += ids
            return ""
        self._is_first = False
        self._undecoded = ids[split:]
        return text

    def _decode(self, ids: Sequence[int]) -> str:
        if self._is_first:
            return self._tokenizer.decode(ids)
        return self._tokenizer.decode_behind(ids)


def _last_boundary(text: str, first: int) -> int:
    """Largest index, at least `first`, that lies between two grapheme clusters; 0 if none does."""
    for index in range(len(text) - 1, max(first, 1) - 1, -1):
        if not _is_joined(text, index):
            return index
    return 0


def _is_joined(text: str, index: int) -> bool:
    """Whether the characters around `index` belong to one grapheme cluster.

    The rules of Unicode Standard Annex 29, section 3.1.1, from character categories alone: where
    they cannot tell, the answer is yes, which only makes the text wait longer.
    """
    before, after = text[index - 1], text[index]
    return (
        _extends(after)
        or before == ZERO_WIDTH_JOINER
        or (before == "\r" and after == "\n")
        or _hangul_kind(after) in _HANGUL_JOINS.get(_hangul_kind(before), "")
        or (_is_regional_indicator(after) and _num_flag_letters(text, index) % 2 == 1)
        or (unicodedata.combining(before) == VIRAMA and unicodedata.category(after)[0] == "L")
    )


def _extends(char: str) -> bool:
    """Whether a character attaches to the one before it: marks, joiners, emoji modifiers."""
    return (
        unicodedata.category(char)[0] == "M"
        or char in (ZERO_WIDTH_NON_JOINER, ZERO_WIDTH_JOINER)
        or "\U0001f3fb" <= char <= "\U0001f3ff"  # skin tones
        or "\U000e0020" <= char <= "\U000e007f"  # tags, as in the flag of Scotland
        or char in "\uff9e\uff9f\u0e33\u0eb3"  # half-width voicing marks, Thai and Lao am
    )


# Leading consonant, vowel, trailing consonant; a syllable without (O) and with (C) a trailing one.
_HANGUL_JOINS = {"L": "LVOC", "V": "VT", "O": "VT", "T": "T", "C": "T"}
_HANGUL_RANGES = (
    ("L", "\u1100", "\u115f"), ("L", "\ua960", "\ua97c"),
    ("V", "\u1160", "\u11a7"), ("V", "\ud7b0", "\ud7c6"),
    ("T", "\u11a8", "\u11ff"), ("T", "\ud7cb", "\ud7fb"),
)  # fmt: skip


def _hangul_kind(char: str) -> str:
    """Key of `_HANGUL_JOINS`, or "-" for what is not Hangul."""
    if "\uac00" <= char <= "\ud7a3":
        return "O" if (ord(char) - 0xAC00) % 28 == 0 else "C"
    return next((kind for kind, low, high in _HANGUL_RANGES if low <= char <= high), "-")


def _is_regional_indicator(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"


def _num_flag_letters(text: str, end: int) -> int:
    """Regional indicators in a row that end at `end`: every two make one flag."""
    start = end
    while start > 0 and _is_regional_indicator(text[start - 1]):
        start -= 1
    return end - start
