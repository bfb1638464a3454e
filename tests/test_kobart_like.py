"""What stands in for KoBART's tokenizer is built as KoBART's is, where that can be looked at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import tokenizer_folder
from tests.kobart_like import CONTROL, EMOJI, EMOTICONS, SENTENCES, UNUSED


def structure(folder: Path) -> dict[str, Any]:
    """All of a tokenizer.json but its words."""
    definition = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    ids = [token.pop("id") for token in definition["added_tokens"]]
    names = [token.pop("content") for token in definition["added_tokens"]]
    del definition["model"]["vocab"], definition["model"]["merges"]
    return {**definition, "ids": ids, "control": names[: len(CONTROL + UNUSED)]}


def test_it_has_the_structure_of_kobarts(tmp_path_factory: pytest.TempPathFactory) -> None:
    kobart = structure(tokenizer_folder("kobart", tmp_path_factory))
    assert structure(tokenizer_folder("kobart-like", tmp_path_factory)) == kobart


def test_it_has_as_many_added_tokens_of_each_kind() -> None:
    kinds = (CONTROL, UNUSED, EMOTICONS, EMOJI)
    assert [len(set(kind)) for kind in kinds] == [7, 100, 109, 13]


KINDS = ("ㅋㅋ", "\u1112", "Ｋ", "👨\u200d👩", "🇰🇷", "👏🏽", "\n\n", "\t", "漢", "½", "뷁", "  ")


@pytest.mark.parametrize("kind", KINDS)
def test_the_sentences_hold_what_real_ones_do(kind: str) -> None:
    assert any(kind in sentence for sentence in SENTENCES)
