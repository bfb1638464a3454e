"""Files of documents with their summaries, as people have them, and what is refused."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from kobart_documents import Pair, ReadOptions, read_pairs, read_texts, write_jsonl
from kobart_documents.table import Table
from kobart_runtime.errors import DocumentError
from tests.kobart_documents.files import write_rows

PAIRS = (Pair("가: 안녕?\n나: 응, 안녕.", '둘이 "안녕" 했다'), Pair("다", "라"))
ROWS = [{"name": f"{i}", "dialogue": p.text, "summary": p.summary} for i, p in enumerate(PAIRS)]


ALL_FORMATS = pytest.mark.parametrize("suffix", ["jsonl", "json", "csv", "tsv", "parquet", "CSV"])


# --- what is read ------------------------------------------------------------------------------


@ALL_FORMATS
def test_every_format_holds_the_same_pairs(suffix: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / f"pairs.{suffix.lower()}", ROWS)
    path = path.rename(tmp_path / f"my.pairs.{suffix}")
    file = read_pairs(path)
    assert file.pairs == PAIRS
    assert file.columns == ("dialogue", "summary")
    assert read_pairs(path, limit=1).pairs == PAIRS[:1]
    assert read_pairs(path, limit=1).sha256 == file.sha256
    assert read_texts(path) == [pair.text for pair in PAIRS]


@ALL_FORMATS
def test_line_ends_are_line_feeds(suffix: str, tmp_path: Path) -> None:
    rows = [{"dialogue": "가\r\n나\r다\n라", "summary": "마\r\n바"}]
    path = write_rows(tmp_path / f"pairs.{suffix.lower()}", rows)
    assert read_pairs(path).pairs == (Pair("가\n나\n다\n라", "마\n바"),)


def test_csv_as_a_spreadsheet_writes_it(tmp_path: Path) -> None:
    """A byte order mark, CRLF, newlines and doubled quotes in quotes, no line end at the end."""
    path = tmp_path / "pairs.csv"
    path.write_bytes(
        '\ufefffname,dialogue,summary\r\n1,"가: 안녕?\r\n나: 응, 안녕.","둘이 ""안녕"" 했다"\r\n'
        "\r\n2,다,라".encode()
    )
    file = read_pairs(path)
    assert file.pairs == PAIRS
    assert file.places == ("line 2", "line 5")


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_files_of_any_line_end(suffix: str, line_end: str, tmp_path: Path) -> None:
    path = write_rows(tmp_path / f"pairs.{suffix}", [{"dialogue": "가", "summary": "나"}] * 2)
    text = path.read_text(encoding="utf-8").replace("\r\n", "\n").rstrip("\n")
    path.write_bytes(("\ufeff" + text.replace("\n", line_end)).encode())
    assert read_pairs(path).pairs == (Pair("가", "나"),) * 2


def test_fields_above_pythons_own_limit(tmp_path: Path) -> None:
    assert csv.field_size_limit() >= 131_072
    long = "긴 글 " * 100_000
    path = write_rows(tmp_path / "pairs.csv", [{"dialogue": long, "summary": "나"}])
    assert read_pairs(path).pairs[0].text == long


def test_text_that_is_no_line_end_to_json(tmp_path: Path) -> None:
    """U+2028, U+0085 and form feeds are characters of a line."""
    pair = Pair("가\u2028나\x85다\x0c라", "마")
    write_jsonl(tmp_path / "pairs.jsonl", [pair])
    assert read_pairs(tmp_path / "pairs.jsonl").pairs == (pair,)


def test_written_lines_are_plain_json(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "dev.jsonl", PAIRS)
    lines = (tmp_path / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[1]) == {"dialogue": "다", "summary": "라"}
    assert read_pairs(tmp_path / "dev.jsonl").pairs == PAIRS


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "tsv", "parquet"])
def test_a_file_is_read_as_it_is_needed(suffix: str, tmp_path: Path) -> None:
    """One malformed row far behind those that are wanted is not reached."""
    rows = [{"dialogue": f"가 {i}", "summary": "나"} for i in range(100_000)]
    path = write_rows(tmp_path / f"pairs.{suffix}", rows)
    if suffix != "parquet":
        with path.open("a", encoding="utf-8") as file:
            file.write('"')
    table = Table(path, ReadOptions(), summaries=True)
    first = [row.values[0] for row in islice(table, 3)]
    assert first == ["가 0", "가 1", "가 2"]
    assert table.num_rows == 3


# --- columns -----------------------------------------------------------------------------------


@ALL_FORMATS
@pytest.mark.parametrize(
    ("text", "summary"),
    [("document", "abstract"), ("text", "title"), ("news", "summary"), ("article", "summary")],
)
def test_usual_names_are_found(text: str, summary: str, suffix: str, tmp_path: Path) -> None:
    rows = [{"id": "1", summary: "나", text: "가"}]
    file = read_pairs(write_rows(tmp_path / f"pairs.{suffix.lower()}", rows))
    assert file.pairs == (Pair("가", "나"),)
    assert file.columns == (text, summary)


@ALL_FORMATS
def test_columns_that_are_asked_for(suffix: str, tmp_path: Path) -> None:
    rows = [{"dialogue": "아님", "본문": "가", "한줄": "나", "summary": "아님"}]
    path = write_rows(tmp_path / f"pairs.{suffix.lower()}", rows)
    options = ReadOptions(text_column="본문", summary_column="한줄")
    assert read_pairs(path, options).pairs == (Pair("가", "나"),)


def test_two_usual_names_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"title": "제목", "text": "아님", "document": "가", "summary": "나"}] * 3
    path = write_rows(tmp_path / "pairs.csv", rows)
    assert set(read_pairs(path).pairs) == {Pair("가", "나")}
    assert capsys.readouterr().err.splitlines() == [
        f"note: {path}: the text is read from 'document', though there is 'text' too: "
        "--text-column NAME takes another",
        f"note: {path}: the summary is read from 'summary', though there is 'title' too: "
        "--summary-column NAME takes another",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {},
            r"no column named dialogue, document, text, news or article, it has '본문', 'summary': "
            "say which one holds the text with --text-column NAME",
        ),
        ({"text_column": "글"}, r"no column '글', it has '본문', 'summary': name one of them"),
        ({"text_column": "본문", "summary_column": "요약"}, "no column '요약', it has"),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_columns_that_are_not_there(
    suffix: str, options: dict[str, str], message: str, tmp_path: Path
) -> None:
    path = write_rows(tmp_path / f"pairs.{suffix}", [{"본문": "가", "summary": "나"}])
    with pytest.raises(DocumentError, match=message):
        read_pairs(path, ReadOptions(**options))


# --- blank values ------------------------------------------------------------------------------


@ALL_FORMATS
def test_blank_rows_are_left_out_and_counted(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = [("가", "나"), ("다", ""), ("", "라"), ("마", " \n"), ("바", None), ("사", "아")]
    rows = [dict(zip(("dialogue", "summary"), value, strict=True)) for value in values]
    path = write_rows(tmp_path / f"pairs.{suffix.lower()}", rows)
    file = read_pairs(path)
    assert file.pairs == (Pair("가", "나"), Pair("사", "아"))
    assert capsys.readouterr().err == (
        f"note: {path}: 4 of 6 rows have a blank dialogue or summary and are left out\n"
    )


def test_a_file_of_blanks_is_refused(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "pairs.csv", [{"dialogue": "가", "summary": ""}] * 2)
    with pytest.raises(DocumentError, match="dialogue or summary is blank in all of its 2 rows"):
        read_pairs(path)


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", r"a\.txt has an unknown format: its name must end in \.jsonl or"),
        ("a", "", "unknown format"),
        ("a.jsonl", "", "holds no documents"),
        ("a.jsonl", "\n \n", "holds no documents"),
        ("a.jsonl", '{"dialogue": "가", "summary": "나"}\n{"dialogue": ', "line 2 must be a JSON"),
        ("a.jsonl", "[1]", "line 1 must be .* as jq"),
        ("a.json", '[\n{"dialogue": "가", "summary": "나"}\n]', "line 1 must be .* as jq"),
        ("a.jsonl", "[" * 100_000, "line 1 must be"),
        ("a.jsonl", '{"dialogue": "가", "summary": 3}', "line 1: summary must be a text, got 3"),
        (
            "a.jsonl",
            '{"dialogue": "가", "summary": "나"}\n\n{"dialogue": "가"}',
            "line 3 has no 'summary', it has 'dialogue'",
        ),
        ("a.csv", "", "holds no documents"),
        ("a.csv", "dialogue,summary\n", "holds no documents"),
        ("a.csv", "dialogue,summary\n가,나\n다\n", "line 3 has 1 fields, the header names 2"),
        ("a.csv", 'dialogue,summary\n"가\n나",다\n라,마,바\n', "line 4 has 3 fields"),
        ("a.csv", 'dialogue,summary\n가,나\n다,"라\n', "line 3: the record that begins here is"),
        ("a.csv", 'dialogue,summary\n"가"나,다\n', "line 2: the record that begins here is"),
        ("a.csv", "dialogue,dialogue,summary\n가,나,다\n", "has 2 columns named 'dialogue'"),
        ("a.csv", '{"dialogue": "가", "summary": "나"}\n', "no column named dialogue, document"),
        ("a.jsonl", "dialogue,summary\n가,나\n", "line 1 must be a JSON object"),
        ("a.parquet", "dialogue,summary\n가,나\n", "is not Parquet that can be read"),
    ],
)
def test_bad_files_are_refused_by_line(name: str, text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DocumentError, match=message) as caught:
        read_pairs(path)
    assert str(path) in str(caught.value)


def test_parquet_of_other_types_is_refused(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.parquet", [{"dialogue": "가", "summary": 3}])
    with pytest.raises(DocumentError, match="row 1: summary must be a text, got 3"):
        read_pairs(path)


def make_missing(path: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (make_missing, "cannot be read: No such file or directory"),
        (Path.mkdir, "cannot be read: Is a directory"),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_files_that_are_none(
    suffix: str, make: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    path = tmp_path / f"none.{suffix}"
    make(path)
    with pytest.raises(DocumentError, match=message):
        read_pairs(path)


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_rows(tmp_path / "a.parquet", ROWS)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DocumentError, match=r"pip install 'kobart-triton\[parquet\]'"):
        read_pairs(path)
