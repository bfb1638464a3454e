"""`python -m calibration`, as a person runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from calibration.__main__ import main
from calibration.scales import read_scales
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


def test_refusals_have_no_traceback(
    mini_build: Path, few_documents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", str(few_documents)]
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
        "does not exist: create it": [str(mini_build), *data, "--output", "/nowhere/at/all.json"],
    }
    for message, arguments in refused.items():
        assert main(arguments) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
