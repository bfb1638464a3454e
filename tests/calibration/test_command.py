"""`python -m calibration`, as a person runs it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from calibration.__main__ import main
from calibration.scales import read_scales
from kobart_documents import read_pairs
from tests.conftest import MINI_CHECKPOINT


@pytest.fixture(scope="module")
def few_documents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = (MINI_CHECKPOINT / "dev.jsonl").read_text(encoding="utf-8").splitlines()[:3]
    path = tmp_path_factory.mktemp("documents") / "few.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_build_is_calibrated(
    mini_build: Path, few_documents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "scales.json"
    arguments = [str(mini_build), "--data", str(few_documents), "--output", str(output)]
    assert main([*arguments, "--method", "minmax"]) == 0
    assert capsys.readouterr().out == f"3 documents -> {output}\n"
    scales = read_scales(output, mini_build / "kobart/1")
    assert (scales.method, scales.num_documents) == ("minmax", 3)


def test_any_format_and_columns(
    mini_build: Path, few_documents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same scales from CSV in cp949 with columns of other names."""
    pairs = read_pairs(few_documents).pairs
    table = tmp_path / "few.csv"
    with table.open("w", encoding="cp949", newline="") as file:
        rows = [("본문", "한줄"), *((pair.text, pair.summary) for pair in pairs)]
        csv.writer(file).writerows(rows)
    columns = ["--text-column", "본문", "--summary-column", "한줄", "--encoding", "cp949"]
    scales: list[object] = []
    for data in ([str(few_documents)], [str(table), *columns]):
        output = tmp_path / f"{len(scales)}.json"
        arguments = [str(mini_build), "--output", str(output), "--method", "minmax", "--data"]
        assert main([*arguments, *data]) == 0
        scales.append(read_scales(output, mini_build / "kobart/1").scales)
    assert scales[0] == scales[1]
    assert "3 documents -> " in capsys.readouterr().out


def test_refusals_have_no_traceback(
    mini_build: Path, few_documents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", str(few_documents)]
    wrong = tmp_path / "wrong-file.csv"
    wrong.write_text("id,value\n1,2\n", encoding="utf-8")
    half = tmp_path / "half"
    (half / "kobart/1").mkdir(parents=True)
    manifest = json.loads((mini_build / "manifest.json").read_text(encoding="utf-8"))
    manifest["built"]["precision"] = "fp16"
    for folder in (half, half / "kobart/1"):
        (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    refused = {
        "is not a build": [str(tmp_path), *data],
        "is fp16 for onnxruntime: calibrate an fp32 build": [str(half), *data],
        "cannot be read": [str(mini_build), "--data", str(tmp_path / "none.jsonl")],
        "wrong-file.csv has no column named dialogue, document, text, news or article": [
            *(str(mini_build), "--data", str(wrong)),
        ],
        "does not exist: create it": [str(mini_build), *data, "--output", "/nowhere/at/all.json"],
    }
    for message, arguments in refused.items():
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
