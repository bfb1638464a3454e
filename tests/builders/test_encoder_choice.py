"""What runs the encoder, and what is timed to decide it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from builders import encoder_choice
from builders.encoder_choice import (
    EncoderChoice,
    choose_encoder,
    encode_ms,
    find_openvino,
)
from builders.pipeline import Source
from builders.timing import NUM_ROUNDS
from calibration.documents import DocumentSet
from kobart_runtime.errors import ConfigError
from kobart_runtime.openvino_encoder import OpenVinoEncoder


@pytest.fixture
def no_openvino(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(encoder_choice, "import_module", missing)


def test_openvino_is_found_unless_the_other_is_asked_for() -> None:
    assert find_openvino("onnxruntime") is None
    for asked in ("auto", "openvino"):
        assert find_openvino(asked).OpenVinoEncoder is OpenVinoEncoder


@pytest.mark.usefixtures("no_openvino")
def test_only_who_asks_for_openvino_must_have_it(mini: Source, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--encoder-engine openvino: OpenVINO cannot be imported"):
        find_openvino("openvino")
    assert find_openvino("auto") is None
    chosen = choose("auto", tmp_path, mini)
    assert chosen == EncoderChoice(engine="onnxruntime", reason="OpenVINO is not installed")


def test_what_is_asked_for_is_not_timed(mini: Source, tmp_path: Path) -> None:
    chosen = choose("onnxruntime", tmp_path, mini)
    assert chosen == EncoderChoice(engine="onnxruntime", reason="as asked")


def choose(asked: str, folder: Path, source: Source) -> EncoderChoice:
    """In a folder without graphs: it fails if one is opened."""
    assert source.documents
    assert source.teacher
    return choose_encoder(asked, folder, source.shape, source.documents, source.teacher)


class _Recording:
    """An encoder that does nothing but tell what it was given."""

    kv_dtype = np.float32

    def __init__(self) -> None:
        self.given: list[Any] = []

    def encode(self, input_ids: np.ndarray, attention_mask: np.ndarray) -> list[np.ndarray]:
        self.given.append((input_ids.tolist(), int(attention_mask.sum())))
        return []

    def give_back_freed(self) -> None:
        raise AssertionError("not asked for")


def test_each_source_is_encoded_alone_by_both(mini: Source) -> None:
    assert mini.documents
    documents: DocumentSet = mini.documents.sample(5)
    one, two = _Recording(), _Recording()
    assert set(encode_ms({"one": one, "two": two}, documents)) == {"one", "two"}
    alone = [([list(each.input_ids)], len(each.input_ids)) for each in documents.documents]
    assert one.given == two.given == NUM_ROUNDS * alone
