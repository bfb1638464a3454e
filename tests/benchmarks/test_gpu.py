"""`make gpu` on the contract double: every row is told. No figure of it means anything."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import gpu as command
from benchmarks import gpu_timing
from benchmarks.gpu_measure import EAGER, QUICK, TRACED, Sizes
from benchmarks.gpu_passes import EncodeAndStep, eager_pass, traced_pass
from benchmarks.gpu_timing import time_passes
from benchmarks.gpu_variants import MINI, VARIANTS, Model, Variant, prepare
from builders import pipeline
from builders.build_plans import main as build_plans
from builders.gpu import Gpu
from builders.prepared_plans import read_jobs
from builders.runtime_choice import RuntimeChoice
from kobart_runtime.errors import EngineError
from tests.builders.conftest import SENTENCES, MakeCheckpoint
from tests.conftest import REPOSITORY
from tests.tensorrt_double.install import installed
from tests.tensorrt_double.plans import SHAPE, tiny_model

GPU = Gpu(name="double", compute_capability=(8, 6), memory_bytes=1 << 34, cuda_version="12.4")
SIZES = Sizes(
    batch=2,
    source_len=12,
    iterations=12,
    warmup=1,
    new_tokens=3,
    repeats=1,
    test_documents=2,
    device="cpu",
)


class Watch(nullcontext):
    """What a GPU would be seen to do: each look finds 50 MB more in use."""

    looks = 0

    def figures(self) -> dict[str, float]:
        Watch.looks += 1
        return {"memory_mb": 50.0 * Watch.looks, "gpu_utilization": 80.0}


@pytest.fixture
def double(monkeypatch: pytest.MonkeyPatch) -> None:
    choice = RuntimeChoice(runtime="tensorrt", reason="contract double", gpu=None)
    monkeypatch.setattr(pipeline, "choose_runtime", lambda runtime, precision: choice)
    monkeypatch.setattr(gpu_timing, "IDLE_S", 0.0)
    monkeypatch.setattr(gpu_timing, "BUSY_S", 0.01)


@pytest.fixture
def model(make_checkpoint: MakeCheckpoint, tmp_path: Path) -> Model:
    documents = tmp_path / "documents.jsonl"
    lines = [json.dumps({"dialogue": text, "summary": text[:20]}) for text in SENTENCES * 2]
    documents.write_text("\n".join(lines), encoding="utf-8")
    return Model(
        name="tiny",
        checkpoint=str(make_checkpoint()),
        documents=str(documents),
        test_documents=documents,
        limits=(("max_batch_size", 4), ("max_beams", 4), ("max_target_length", 16)),
    )


@pytest.mark.usefixtures("double")
def test_every_row_is_told(model: Model, tmp_path: Path) -> None:
    impossible = Variant(name="impossible", precision="fp32", prune=("layers=encoder:9",))
    output = tmp_path / "report"
    with installed("10"):
        command.run(GPU, [model], [VARIANTS[0], impossible], SIZES, Watch, tmp_path, output)
    report = json.loads((output / "gpu.json").read_text(encoding="utf-8"))
    [found] = report["models"]
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == [EAGER, TRACED, VARIANTS[0].name, "impossible"]
    for name in (EAGER, TRACED, VARIANTS[0].name):
        timing = rows[name]["timing"]
        assert 0 < timing["ms"]["p50"] <= timing["ms"]["p95"] <= timing["ms"]["p99"]
        assert (timing["memory_mb"], timing["gpu_utilization"]) == (50.0, 80.0)
        assert timing["failure"] is None
    assert "encoder" in rows["impossible"]["timing"]["failure"]
    plan = rows[VARIANTS[0].name]
    assert plan["rouge_l"] == rows[EAGER]["rouge_l"]
    assert rows[TRACED]["rouge_l"] is None
    assert plan["gate"].startswith("passed: logits within")
    assert plan["precision"] == {"encoder.plan": "fp32", "decoder.plan": "fp32"}
    systems = {m["system"] for m in found["decode"]}
    assert {"PyTorch generate fp32", VARIANTS[0].name} <= systems
    assert len({m["case"] for m in found["decode"]}) == 2
    assert report["machine"]["gpu"]["name"] == "double"
    assert report["machine"]["versions"]["torch"]
    text = (output / "gpu.md").read_text(encoding="utf-8")
    assert "- impossible: not built: " in text
    assert all(f"| {name} |" in text for name in rows)


@pytest.mark.slow
@pytest.mark.usefixtures("double")
def test_kobart_mini_passes_its_gates_in_every_variant(tmp_path: Path) -> None:
    lines = Path(MINI.documents).read_text(encoding="utf-8").splitlines()
    documents = tmp_path / "documents.jsonl"
    documents.write_text("\n".join(lines[:20]), encoding="utf-8")
    model = replace(MINI, documents=str(documents))
    sizes = replace(QUICK, device="cpu", iterations=2, warmup=1, batch=2, new_tokens=4)
    sizes = replace(sizes, test_documents=4)
    with installed("10"):
        command.run(GPU, [model], VARIANTS, sizes, Watch, tmp_path, tmp_path / "report")
    report = json.loads((tmp_path / "report" / "gpu.json").read_text(encoding="utf-8"))
    for row in report["models"][0]["rows"][2:]:
        assert row["timing"]["failure"] is None
        assert row["gate"].startswith("passed")
        assert row["rouge_l"] > 0.5
        assert set(row["precision"].values()) <= {"fp32", "fp16", "int8"}


def test_the_promised_rows_are_asked_for() -> None:
    precisions = [(variant.precision, variant.prune) for variant in VARIANTS]
    assert precisions == [("fp32", ()), ("fp16", ()), ("int8", ()), ("fp16", ("structured=0.2",))]
    sizes = Sizes()
    assert (sizes.batch, sizes.source_len, sizes.iterations, sizes.warmup) == (8, 512, 100, 10)
    for variant in VARIANTS:
        config = variant.config(MINI, Path("out"))
        assert not config.force, "the gates stand"


def test_a_system_that_fails_keeps_no_other_from_being_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(gpu_timing, "IDLE_S", 0.0)
    monkeypatch.setattr(gpu_timing, "BUSY_S", 0.0)
    order: list[str] = []

    def refuse() -> Any:
        raise EngineError("no room\nsecond line")

    systems = {
        "a": lambda: lambda: order.append("a"),
        "broken": refuse,
        "b": lambda: lambda: order.append("b"),
    }
    timings = time_passes(systems, Watch, iterations=15, warmup=2)
    assert timings["broken"].failure == "no room"
    assert timings["a"].ms
    assert timings["b"].ms
    # One look at each, warm-up, then rounds of at most ten.
    assert "".join(order) == "ab" + "aabb" + "a" * 10 + "b" * 10 + "a" * 5 + "b" * 5


def test_the_traced_modules_are_the_model() -> None:
    """Both passes run, and what is traced gives the logits of the model that is timed beside it."""
    model = tiny_model()
    ids = np.random.default_rng(0).integers(97, size=(2, 9)).astype(np.int32)
    for run in (eager_pass(model, ids, "cpu"), traced_pass(model, ids, "cpu", 8)):
        run()
    sources, first = torch.from_numpy(ids), torch.ones(2, 1, dtype=torch.int32)
    past = torch.zeros(2, SHAPE.num_heads, 1, SHAPE.head_dim)
    with torch.no_grad():
        logits = EncodeAndStep(model, 8)(sources, torch.ones_like(sources), first, past)[0]
        expected = model(input_ids=sources.long(), decoder_input_ids=first.long()).logits
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("options", [[], ["--quick"], ["--check-gpu"]])
def test_without_a_gpu_nothing_is_written(
    options: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("builders.gpu.DRIVER_LIBRARY", "libno-such-driver.so")
    assert command.main([*options, "--output", str(tmp_path / "out")]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("error: an NVIDIA GPU is missing: there is no NVIDIA driver")
    assert line.endswith("run this on a machine with a GPU and NVIDIA's driver")
    assert not (tmp_path / "out").exists()


def test_without_tensorrt_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "require_gpu", lambda: GPU)
    missing = ["TensorRT and polygraphy (pip install tensorrt polygraphy)"]
    monkeypatch.setattr("benchmarks.gpu_machine.missing_packages", lambda: missing)
    assert command.main(["--output", str(tmp_path / "out")]) == 1
    assert f"error: this machine lacks {missing[0]}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_target_asks_for_a_gpu_before_it_installs() -> None:
    text = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    recipe = text.split("\ngpu:")[1].split("\n\n")[0]
    check, install, run = recipe.splitlines()[1:]
    assert "--check-gpu" in check
    assert "tensorrt" in install
    assert run.endswith("-m benchmarks.gpu")


def test_another_machine_builds_what_was_prepared(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(model, [VARIANTS[0]], tmp_path / "ready")
    folder = tmp_path / "ready" / "fp32"
    assert [job.precision for job in read_jobs(folder)] == ["fp32", "fp32"]
    with installed("8"):
        assert build_plans([str(folder)]) == 0
    assert (folder / "decoder.plan").is_file()
    assert "TensorRT 8.6.0" in capsys.readouterr().out
