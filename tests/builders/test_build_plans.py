"""Plans built where there is neither PyTorch nor ONNX, from what another machine prepared."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from builders.build_plans import main
from builders.prepared_plans import JOBS_FILE, PlanJob, read_jobs, write_jobs
from builders.profiles import decoder_profiles, encoder_profiles
from kobart_runtime.errors import ConfigError
from tests.conftest import REPOSITORY
from tests.tensorrt_double.install import installed
from tests.tensorrt_double.plan import Plan
from tests.tensorrt_double.plans import LIMITS, SHAPE, export_tiny

# The double needs ONNX; what is under test must import none of these.
PROGRAM = """
import sys
from tests.tensorrt_double.install import installed

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked")

BLOCKED = {"torch", "transformers", "onnx", "onnxruntime", "tokenizers", "yaml", "tritonclient"}
kept = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] in BLOCKED}
sys.meta_path.insert(0, Blocker())
with installed("8"):
    import builders.engine, builders.profiles, builders.build_plans
    import kobart_runtime.tensorrt_engine, kobart_runtime.tensorrt_runner
    for name in BLOCKED:
        assert name not in sys.modules, name
    sys.exit(builders.build_plans.main(sys.argv[1:]))
"""


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    export_tiny(tmp_path)
    profiles = (encoder_profiles(LIMITS), decoder_profiles(SHAPE, LIMITS))
    jobs = [
        PlanJob(graph=f"{name}.onnx", plan=f"{name}.plan", precision="fp32", profiles=wanted)
        for name, wanted in zip(("encoder", "decoder"), profiles, strict=True)
    ]
    write_jobs(tmp_path, jobs)
    assert read_jobs(tmp_path) == jobs
    return tmp_path


def test_plans_are_built_without_pytorch_and_onnx(prepared: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(prepared)]
    command += ["--workspace-mib", "64", "--tactic-source", "JIT_CONVOLUTIONS"]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "TensorRT 8.6.0" in result.stdout
    for name in ("encoder", "decoder"):
        plan = Plan.read((prepared / f"{name}.plan").read_bytes())
        assert plan
        assert plan.settings["tactic_sources"] == ["JIT_CONVOLUTIONS"]
        assert plan.settings["workspace"] == 64 << 20
        facts = json.loads((prepared / f"{name}.json").read_text(encoding="utf-8"))
        assert (facts["tensorrt"], facts["precision"]) == ("8.6.0", "fp32")


def test_without_tensorrt_it_says_how_to_get_it(
    prepared: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "builders.engine", None)
    assert main([str(prepared)]) == 1
    assert "pip install numpy polygraphy tensorrt" in capsys.readouterr().err


def test_unknown_tactic_sources_are_refused(
    prepared: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with installed("11"):
        assert main([str(prepared), "--tactic-source", "CUBLAS"]) == 1
    message = "tactic source 'CUBLAS' is none of EDGE_MASK_CONVOLUTIONS, JIT_CONVOLUTIONS"
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("content", ["", "{}", '{"format": 2}', '{"format": 1, "plans": [{}]}'])
def test_a_folder_that_was_not_prepared(tmp_path: Path, content: str) -> None:
    if content:
        (tmp_path / JOBS_FILE).write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"plans\.json is no list of plans"):
        read_jobs(tmp_path)


def test_a_folder_that_was_copied_in_part(prepared: Path) -> None:
    (prepared / "decoder.onnx").unlink()
    with pytest.raises(ConfigError, match=r"decoder\.onnx is missing: copy the whole folder"):
        read_jobs(prepared)
