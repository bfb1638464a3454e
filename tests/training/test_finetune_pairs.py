from __future__ import annotations

import json
from pathlib import Path

import pytest

from kobart_runtime.errors import ConfigError
from training.finetune_pairs import Pair, read_pairs, write_jsonl

PAIRS = (Pair("가: 안녕?\n나: 응, 안녕.", '둘이 "안녕" 했다'), Pair("다", "라"))


def test_jsonl_and_csv_hold_the_same_pairs(tmp_path: Path) -> None:
    """CSV as a spreadsheet writes it: a byte order mark, more columns, newlines in quotes."""
    jsonl, csv = tmp_path / "pairs.jsonl", tmp_path / "pairs.csv"
    write_jsonl(jsonl, PAIRS)
    csv.write_bytes(
        '\ufefffname,dialogue,summary\r\n1,"가: 안녕?\n나: 응, 안녕.","둘이 ""안녕"" 했다"\r\n'
        "2,다,라\r\n".encode()
    )
    assert read_pairs(jsonl).pairs == read_pairs(csv).pairs == PAIRS
    assert read_pairs(csv).lines == (3, 4)
    assert read_pairs(jsonl, limit=1).pairs == PAIRS[:1]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "", r"must end in \.jsonl or \.csv"),
        ("a.jsonl", "\n \n", "holds no pairs"),
        ("a.jsonl", '{"dialogue": "가", "summary": "나"}\n{"dialogue": ', "line 2 is not JSON"),
        ("a.jsonl", '{"dialogue": "가"}', "line 1 needs a dialogue and a summary"),
        ("a.jsonl", '{"dialogue": "가", "summary": " "}', "line 1 .* not blank"),
        ("a.jsonl", "[1]", "line 1 needs a dialogue"),
        ("a.csv", "", "no column dialogue and no column summary, its first line names nothing"),
        (
            "a.csv",
            "text,summary\n가,나\n",
            "no column dialogue, its first line names text, summary",
        ),
        ("a.csv", "dialogue,summary\n", "holds no pairs"),
        ("a.csv", "dialogue,summary\n가,나\n다\n", "line 3 needs a dialogue and a summary"),
        ("a.csv", 'dialogue,summary\n가,"나\n', "is not CSV"),
    ],
)
def test_bad_files_are_refused_by_line(name: str, text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_pairs(path)


def test_missing_and_binary_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_pairs(tmp_path / "none.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_pairs(tmp_path / "binary.jsonl")


def test_written_lines_are_plain_json(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "dev.jsonl", PAIRS)
    lines = (tmp_path / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[1]) == {"dialogue": "다", "summary": "라"}
