"""Files that are not UTF-8: read with --encoding, or refused with the encoding that fits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kobart_documents import Document, Pair, ReadOptions, open_inputs, read_pairs
from kobart_runtime.errors import DocumentError

CSV = "dialogue,summary\r\n" + "영희: 안녕하세요?,인사\r\n" * 3
PAIR = Pair("영희: 안녕하세요?", "인사")
ENCODINGS = ["cp949", "utf-16", "utf-16-le", "utf-16-be", "utf-32"]


@pytest.fixture(params=["csv", "txt"])
def suffix(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def read(path: Path, encoding: str | None = None) -> list[Document]:
    """As kobart-summarize does: a table, or a text."""
    [given] = open_inputs([str(path)], ReadOptions(encoding=encoding))
    given.count()
    return list(given)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_other_encodings_are_named_and_can_be_asked_for(
    encoding: str, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"data.{suffix}"
    path.write_bytes(CSV.encode(encoding))
    with pytest.raises(DocumentError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(f"{path} is not UTF-8 ")
    assert message.endswith(f": it can be read with --encoding {encoding}")
    documents = read(path, encoding)
    if suffix == "csv":
        assert documents[0] == Document(f"{path}:1", PAIR.text)
        assert read_pairs(path, ReadOptions(encoding=encoding)).pairs == (PAIR,) * 3
    else:
        assert documents == [Document(str(path), CSV.replace("\r\n", "\n").rstrip("\n"))]


def test_utf16_of_latin_letters_is_no_utf8(suffix: str, tmp_path: Path) -> None:
    """Every byte of it is valid UTF-8."""
    path = tmp_path / f"data.{suffix}"
    path.write_bytes("dialogue,summary\nhello,hi\n".encode("utf-16-le"))
    with pytest.raises(DocumentError, match="it can be read with --encoding utf-16-le"):
        read(path)


def test_a_file_that_is_utf8_after_all(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"data.{suffix}"
    path.write_text(CSV, encoding="utf-8")
    with pytest.raises(DocumentError, match=r"is not cp949 \(byte .* leave --encoding out"):
        read(path, "cp949")


def test_a_table_in_utf16_without_a_mark(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_bytes(CSV.encode("utf-16-be"))
    with pytest.raises(DocumentError, match=r"is not utf-16 \(.* --encoding utf-16-be$"):
        read(path, "utf-16")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_no_text(encoding: str, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"data.{suffix}"
    path.write_bytes(CSV.encode(encoding))
    texts = [document.text for document in read(path, encoding)]
    assert "\ufeff" not in "".join(texts)
    assert read(path, None if encoding == "utf-8-sig" else encoding)[0].text == texts[0]


@pytest.mark.parametrize("place", [5, 70_000, 3_000_000])
def test_the_bad_byte_is_named(place: int, suffix: str, tmp_path: Path) -> None:
    """Its place in the file and not in the part that was being decoded."""
    lines = "a,b\n" * 1_000_000
    data = bytearray(lines.encode())
    data[place] = 0xFF
    path = tmp_path / f"data.{suffix}"
    path.write_bytes(b"dialogue,summary\n" + data)
    line = 2 + lines[:place].count("\n")
    with pytest.raises(DocumentError) as caught:
        read(path)
    assert str(caught.value) == (
        f"{path} is not UTF-8 (byte {17 + place}) on line {line}: it is no text of a known "
        "encoding either: save it as UTF-8"
    )


def test_a_character_that_is_cut_off(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"data.{suffix}"
    path.write_bytes("dialogue,summary\n가,나".encode()[:-1])
    with pytest.raises(DocumentError, match=r"is not UTF-8 \(byte 21\) on line 2"):
        read(path)


@pytest.mark.parametrize("encoding", ["klingon", "base64", "rot13", ""])
def test_unknown_encodings(encoding: str) -> None:
    with pytest.raises(DocumentError, match="is unknown: usual ones are utf-8, cp949 and utf-16"):
        ReadOptions(encoding=encoding)


def test_a_pipe_is_no_table(tmp_path: Path) -> None:
    path = tmp_path / "pipe.csv"
    os.mkfifo(path)
    with pytest.raises(DocumentError, match="is not a regular file"):
        read(path)
