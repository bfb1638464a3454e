"""What kobart-summarize is given: whole files of text, standard input, rows of tables."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from kobart_documents import Document, ReadOptions, open_inputs
from kobart_runtime.errors import DocumentError


def test_a_file_is_one_text(tmp_path: Path) -> None:
    path = tmp_path / "글.txt"
    path.write_bytes("\ufeff첫 줄\r\n둘째 줄\r셋째\r\n\r\n".encode())
    [given] = open_inputs([str(path)], ReadOptions())
    assert not given.is_table
    assert given.count() == 1
    assert list(given) == [Document(str(path), "첫 줄\n둘째 줄\n셋째")]


@pytest.mark.parametrize("names", [[], ["-"]])
def test_standard_input_is_one_text(names: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("가,나\r\n다\r\n".encode())))
    [given] = open_inputs(names, ReadOptions())
    assert list(given) == [Document("-", "가,나\n다")]


def test_a_table_has_a_document_in_every_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows keep their numbers where a blank one is left out, which is told once."""
    path = tmp_path / "글.csv"
    path.write_text('id,text\n1,"가\n나"\n2,\n3,다\n', encoding="utf-8")
    [given] = open_inputs([str(path)], ReadOptions())
    assert given.is_table
    assert given.count() == 2
    assert list(given) == [Document(f"{path}:1", "가\n나"), Document(f"{path}:3", "다")]
    assert capsys.readouterr().err == (
        f"note: {path}: 1 of 3 rows have a blank text and are left out\n"
    )


def test_a_table_needs_no_summaries(tmp_path: Path) -> None:
    path = tmp_path / "글.jsonl"
    path.write_text(json.dumps({"기사": "가"}), encoding="utf-8")
    [given] = open_inputs([str(path)], ReadOptions(text_column="기사"))
    assert list(given) == [Document(f"{path}:1", "가")]


def test_a_table_is_checked_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "글.csv"
    path.write_text("id,text\n1,가\n2\n", encoding="utf-8")
    [given] = open_inputs([str(path)], ReadOptions())
    with pytest.raises(DocumentError, match="line 3 has 1 fields"):
        given.count()


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "글.csv"
    path.write_text("id,text\n", encoding="utf-8")
    [given] = open_inputs([str(path)], ReadOptions())
    with pytest.raises(DocumentError, match="holds no documents"):
        given.count()


def test_a_column_needs_a_table() -> None:
    with pytest.raises(DocumentError, match="--text-column 기사 needs a file with columns"):
        open_inputs(["글.txt"], ReadOptions(text_column="기사"))
