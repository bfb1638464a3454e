"""Documents as ids: their order, their batches, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from calibration.documents import Document, DocumentSet, Encoders, encode_pairs, pad
from kobart_documents import read_pairs
from kobart_runtime.errors import DocumentError, InvalidArgumentError
from tests.calibration.conftest import TEXTS, write_documents


def test_documents_are_the_same_in_any_order(
    documents_file: Path, encoders: Encoders, tmp_path: Path
) -> None:
    turned = write_documents(tmp_path / "turned.jsonl", TEXTS[::-1])
    documents = encode_pairs(read_pairs(documents_file), encoders)
    assert documents.documents == encode_pairs(read_pairs(turned), encoders).documents
    lengths = [len(document.input_ids) for document in documents.documents]
    assert lengths == sorted(lengths, reverse=True)
    assert documents.documents[0].decoder_input_ids[0] == encoders.decoder_start
    assert len(documents.documents[0].decoder_input_ids) == 1 + len("바사" * 20)


def test_batches_keep_both_limits_and_lose_nothing() -> None:
    lengths = [30, 9, 9, 8, 8, 7]
    documents = DocumentSet("", tuple(Document((1,) * length, (1,)) for length in lengths))
    batches = list(documents.batches(max_documents=3, max_source_ids=20))
    assert [[len(document.input_ids) for document in batch] for batch in batches] == [
        [30], [9, 9], [8, 8], [7],
    ]  # fmt: skip
    assert [len(batch) for batch in documents.batches(3, 1000)] == [3, 3]


def test_a_sample_spreads_over_all_lengths() -> None:
    documents = DocumentSet("", tuple(Document((1,) * length, (1,)) for length in range(9, 0, -1)))
    sampled = documents.sample(3).documents
    assert [len(document.input_ids) for document in sampled] == [9, 6, 3]
    assert documents.sample(100) == documents


def test_padding() -> None:
    ids, mask = pad([(5, 6, 7), (8,)])
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_a_text_without_tokens_is_refused_by_line(tmp_path: Path) -> None:
    def encode(text: str) -> list[int]:
        if text == "무":
            raise InvalidArgumentError("text_input has no tokens left after normalisation")
        return [7]

    path = write_documents(tmp_path / "dev.jsonl", [("가", "나"), ("다", "무")])
    encoders = Encoders(source=encode, summary=encode, decoder_start=1)
    with pytest.raises(DocumentError, match=r"dev\.jsonl, line 2: text_input has no tokens"):
        encode_pairs(read_pairs(path), encoders)
