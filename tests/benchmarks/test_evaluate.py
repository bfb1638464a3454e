"""`kobart-evaluate` on kobart-mini, in this process."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.evaluate import main
from client.evaluation.outcome import agreement
from client.report.document import COMPLETE, PARTIAL, Report, read_report
from kobart_documents import read_pairs
from tests.conftest import MINI_CHECKPOINT
from tests.kobart_documents.files import write_rows

GOOD = '{"dialogue": "가", "summary": "나"}'
DATA = ("--data", str(MINI_CHECKPOINT / "dev.jsonl"))


def evaluate(build: Path, output: Path, *flags: str) -> int:
    return main([str(build), "--output", str(output), *flags])


def read(folder: Path) -> Report:
    return read_report(folder / "report.json")


def score(folder: Path, unit: str, key: str) -> float:
    table = read(folder).table("scores")
    assert table is not None
    (row,) = [row for row in table.rows if row["unit"] == unit]
    value = row[key]
    assert isinstance(value, float)
    return value


def lines(folder: Path) -> list[str]:
    return (folder / "documents.jsonl").read_text(encoding="utf-8").splitlines()


@pytest.fixture(scope="module")
def evaluated(mini_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen documents, compared with PyTorch."""
    folder = tmp_path_factory.mktemp("evaluated")
    flags = ("--quick", "--checkpoint", str(MINI_CHECKPOINT), "--num-beams", "2")
    limits = ("--min-rouge-l", "0.8", "--min-agreement", "1.0")
    assert evaluate(mini_build, folder, *DATA, *flags, *limits) == 0
    return folder


def test_scores_and_agreement(evaluated: Path) -> None:
    report = read(evaluated)
    assert report.status == COMPLETE
    shown = {headline.title.en: headline.value for headline in report.headlines}
    assert shown["Tokens as PyTorch's"] == "100.00"
    assert shown["Documents"] == "16"
    assert 0.8 < score(evaluated, "words", "rouge_l") <= 1
    documents = [json.loads(line) for line in lines(evaluated)]
    assert [document["index"] for document in documents] == list(range(16))
    assert all(document["output_ids"] == document["checkpoint_ids"] for document in documents)
    mean = sum(document["rouge"]["characters"]["rouge_l"] for document in documents) / 16
    assert score(evaluated, "characters", "rouge_l") == pytest.approx(mean, abs=1e-5)


def test_any_format_gives_the_same_summaries(mini_build: Path, tmp_path: Path) -> None:
    """CSV with Windows line ends, columns of other names and a blank row."""
    pairs = read_pairs(Path(DATA[1])).pairs[:3]
    rows = [{"글": pair.text.replace("\n", "\r\n"), "한줄": pair.summary} for pair in pairs]
    rows.insert(1, {"글": "요약이 없는 글", "한줄": ""})
    table = write_rows(tmp_path / "data.csv", rows)
    flags = ("--limit", "3", "--num-beams", "1")
    columns = ("--text-column", "글", "--summary-column", "한줄")
    assert evaluate(mini_build, tmp_path / "lines", *DATA, *flags) == 0
    assert evaluate(mini_build, tmp_path / "table", "--data", str(table), *columns, *flags) == 0
    assert lines(tmp_path / "table") == lines(tmp_path / "lines")


def test_an_interrupted_run_goes_on(mini_build: Path, tmp_path: Path) -> None:
    flags = (*DATA, "--limit", "6", "--num-beams", "1")
    assert evaluate(mini_build, tmp_path / "whole", *flags) == 0
    assert evaluate(mini_build, tmp_path / "again", *flags) == 0
    whole = lines(tmp_path / "whole")
    marked = whole[0].replace('"summary": "', '"summary": "표시 ')
    half_a_line = whole[3][:40]
    journal = tmp_path / "again" / "documents.jsonl"
    journal.write_text("\n".join([marked, *whole[1:3], half_a_line]), encoding="utf-8")
    assert evaluate(mini_build, tmp_path / "again", *flags) == 0
    assert lines(tmp_path / "again") == [marked, *whole[1:]]


def test_a_folder_of_other_inputs_is_left_alone(
    mini_build: Path, evaluated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = lines(evaluated)
    assert evaluate(mini_build, evaluated, *DATA, "--limit", "2") == 1
    assert "holds an evaluation of other inputs" in capsys.readouterr().err
    assert lines(evaluated) == before


def test_below_the_least_score_is_exit_code_1(
    mini_build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.jsonl"
    dialogue = json.loads(Path(DATA[1]).read_text(encoding="utf-8").splitlines()[0])["dialogue"]
    other.write_text(json.dumps({"dialogue": dialogue, "summary": "전혀 다른 글"}) + "\n")
    flags = ("--data", str(other), "--num-beams", "1", "--min-rouge-l", "0.9")
    assert evaluate(mini_build, tmp_path / "out", *flags) == 1
    assert "below --min-rouge-l 0.9" in capsys.readouterr().err
    assert read(tmp_path / "out").status == COMPLETE


def test_a_document_that_cannot_be_summarized_leaves_a_partial_report(
    mini_build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second group of documents fails, by half a character; the first one is kept."""
    documents = [{"dialogue": f"내일 {hour}시에 봐.", "summary": "가"} for hour in range(32)]
    documents.append({"dialogue": "\ud800", "summary": "가"})
    data = tmp_path / "data.jsonl"
    data.write_text("\n".join(map(json.dumps, documents)), encoding="utf-8")
    flags = ("--data", str(data), "--num-beams", "1", "--max-new-tokens", "4")
    assert evaluate(mini_build, tmp_path / "out", *flags) == 1
    assert "error:" in capsys.readouterr().err
    assert read(tmp_path / "out").status == PARTIAL
    assert len(lines(tmp_path / "out")) == 32


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no documents"),
        (
            '{"dialogue": "가", "summary": "나"}\n{"dialogue": 1, "summary": "나"}',
            "line 2: dialogue",
        ),
        ('{"dialogue": "가", "summary": "나"}\n\n["가"]', "line 3 must be"),
        ("not json", "line 1 must be"),
    ],
)
def test_bad_data(
    content: str, message: str, mini_build: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data.jsonl").write_text(content, encoding="utf-8")
    assert evaluate(mini_build, tmp_path / "out", "--data", str(tmp_path / "data.jsonl")) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert message in line


def test_agreement_without_a_checkpoint_is_a_usage_error(mini_build: Path, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        evaluate(mini_build, tmp_path, *DATA, "--min-agreement", "0.9")


def test_agreement() -> None:
    assert agreement((1, 2, 3), (1, 2, 3)) == 1
    assert agreement((1, 2, 3, 4), (1, 9, 3)) == 0.5
    assert agreement((), ()) == 1
