"""What was asked for is checked before the weights are read, which can take half a minute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from builders.config import BuildConfig
from builders.pipeline import build
from kobart_runtime.errors import KobartError

MakeCheckpoint = Callable[..., Path]


@pytest.fixture
def checkpoint(make_checkpoint: MakeCheckpoint, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint whose weights must not be read."""

    def read(*_: object, **__: object) -> None:
        pytest.fail("the weights were read")

    monkeypatch.setattr("builders.checkpoint.PrunedBart.from_pretrained", read)
    return make_checkpoint()


def refusal(checkpoint: Path, output: Path, **options: Any) -> str:
    options = {"precision": "fp16", **options}
    config = BuildConfig(**options, checkpoint=str(checkpoint), output=str(output))
    with pytest.raises(KobartError) as refused:
        build(config)
    assert "\n" not in str(refused.value)
    assert not output.exists()
    return str(refused.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"", "holds no"),
        (b'{"dialogue": "text"}\n', "summary"),
        (b"not json\n", "line 1"),
        ("한글".encode("cp949"), "encoding"),
    ],
    ids=["missing", "empty", "another form", "another format", "another encoding"],
)
def test_documents(checkpoint: Path, tmp_path: Path, content: bytes | None, message: str) -> None:
    """Those that were asked for, and those that the checkpoint ships."""
    given = tmp_path / "given.jsonl"
    if content is not None:
        given.write_bytes(content)
        (checkpoint / "dev.jsonl").write_bytes(content)
        assert message in refusal(checkpoint, tmp_path / "build")
    assert message in refusal(checkpoint, tmp_path / "build", calibration_data=str(given))


def test_documents_that_are_not_there(checkpoint: Path, tmp_path: Path) -> None:
    message = refusal(checkpoint, tmp_path / "build")
    assert "ships no dev.jsonl: give --calibration-data" in message
    random = refusal(Path("kobart-base-random"), tmp_path / "build")
    assert "kobart-base-random ships no dev.jsonl" in random


def test_tokenizers_adapters_and_settings(checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "build"
    (tmp_path / "no-adapter").mkdir()
    fp32 = {"precision": "fp32"}
    assert "--tokenizer /no/such" in refusal(checkpoint, output, tokenizer="/no/such", **fp32)
    adapter = refusal(checkpoint, output, adapter=str(tmp_path / "no-adapter"), **fp32)
    assert "has no adapter_config.json" in adapter
    (checkpoint / "tokenizer.json").write_text("{", encoding="utf-8")
    assert "tokenizer.json is not JSON" in refusal(checkpoint, output, **fp32)
