"""Limits and threads changed for a server, by flags and by the environment, on the real one."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from server.stubs import find_stubs
from tests.patience import PATIENCE_S, wait_until
from tests.server.served import Served
from tests.triton.conftest import running
from tests.triton.http_api import generate, settled_metrics
from tests.triton.limited import limited_copy

pytestmark = pytest.mark.triton

Serve = Callable[..., Served]
TEXT = "내일 오후 두 시에 만나기로 했다."
LINE = re.compile(r"kobart_runtime.service: (\w+): (max_batch_size .*)")


def told(log: Callable[[], str], num_models: int = 1) -> dict[str, str]:
    """What the log says is in force, by model; it may come a moment after the model is ready."""
    wait_until(lambda: len(LINE.findall(log())) == num_models)
    return dict(LINE.findall(log()))


def num_threads(server_pid: int, model: str = "kobart") -> int:
    (stub,) = (stub for stub in find_stubs(server_pid) if stub.model == model)
    return len(list(Path(f"/proc/{stub.pid}/task").iterdir()))


def test_flags_change_limits_and_threads_without_another_build(
    mini_build: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KOBART_MAX_QUEUE_SIZE", "5")  # the flag wins
    monkeypatch.setenv("KOBART_MAX_REQUEST_SECONDS", "33")
    flags = {
        "--max-queue-size": 3,
        "--max-batch-size": 7,
        "--max-cache-mib": 9,
        "--max-input-bytes": 50,
    }
    arguments = [f"{flag}={value}" for flag, value in flags.items()]
    five = serve(mini_build, "--model=all", "--threads=5", *arguments).wait_ready()
    line = told(lambda: five.stderr)["kobart"]
    assert line == (
        "max_batch_size 7 (build: 32), max_queue_size 3 (build: 256), max_request_seconds 33 "
        f"(build: {PATIENCE_S:.0f}), max_input_bytes 50 (build: 524288), max_cache_mib 9 "
        "(build: half of the free memory), threads 5 (as asked for)"
    )

    one = serve(mini_build, "--model=all", "--threads=1").wait_ready()
    # A session of five threads starts four beside the one that calls; the front model has two.
    for model, num_engines in (("kobart", 2), ("kobart_encoder", 1), ("kobart_decoder", 1)):
        more = num_threads(five.server_pid, model) - num_threads(one.server_pid, model)
        assert more == 4 * num_engines, model
    assert five.generate(TEXT[:8], model="kobart", max_new_tokens=4)
    with pytest.raises(AssertionError, match=r"text_input has 51 bytes, limit 50.*serve with"):
        five.generate("a" * 51, model="kobart")


def test_the_environment_alone_will_do(
    mini_build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As for a stock tritonserver, which knows no flags of ours."""
    monkeypatch.setenv("KOBART_MAX_BATCH_SIZE", "2")
    monkeypatch.setenv("KOBART_MAX_CACHE_MIB", "8")
    monkeypatch.setenv("KOBART_NUM_MODELS", "3")
    log = tmp_path / "log"
    with running(mini_build, log) as server:
        line = told(log.read_text)["kobart"]
        assert "max_batch_size 2 (build: 32), max_queue_size 256," in line
        values = settled_metrics(server)
        assert (values["slots"], values["cache_limit_bytes"]) == (2, 8 << 20)
        large = generate(server, text_input=TEXT, num_beams=8, max_new_tokens=250)["error"]
        assert "limit 8.0: " in large
        assert "serve with a larger --max-cache-mib" in large


def renamed_copy(build: Path, folder: Path, name: str) -> Path:
    """A copy whose models have another name, as if it had been built with it."""
    limited_copy(build, folder)
    for model in ("kobart", "kobart_encoder", "kobart_decoder"):
        other = folder / model.replace("kobart", name)
        (folder / model).rename(other)
        rewrite(other / "config.pbtxt", f'"{model}"', f'"{other.name}"')
    for manifest in folder.rglob("manifest.json"):
        rewrite(manifest, '"name": "kobart"', f'"name": "{name}"')
    return folder


def rewrite(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.unlink()  # it may be a hard link
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_models_of_one_server_share_the_free_memory(mini_build: Path, tmp_path: Path) -> None:
    other = renamed_copy(mini_build, tmp_path / "other", "other")
    log = tmp_path / "log"
    with running([mini_build, other], log) as server:
        lines = told(log.read_text, num_models=2)
        assert generate(server, "other", text_input=TEXT)["text_output"]
    shared = r"max_cache_mib (\d+) \(half of the free memory, shared by 2 models\)"
    limits = [int(re.findall(shared, lines[model])[0]) for model in ("kobart", "other")]
    total_mib = int(Path("/proc/meminfo").read_text().split()[1]) >> 10
    assert sum(limits) <= total_mib / 2
    assert min(limits) > 0.5 * max(limits)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--threads=0"], "--threads must be a whole number above 0 and at most 1024, got '0'"),
        (["--max-queue-size", "many"], "--max-queue-size must be a whole number above 0, got"),
    ],
)
def test_a_flag_that_is_no_number_is_refused_at_once(
    mini_build: Path, serve: Serve, flags: list[str], message: str
) -> None:
    served = serve(mini_build, *flags)
    assert served.wait_exit() == 2
    assert message in served.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("KOBART_THREADS", "many", "KOBART_THREADS must be a whole number above 0"),
        ("KOBART_MAX_BEAMS", "4", "KOBART_MAX_BEAMS cannot be set for a server: valid are"),
    ],
)
def test_a_variable_that_cannot_be_is_one_clear_error_at_the_load(
    mini_build: Path,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
    message: str,
) -> None:
    monkeypatch.setenv(variable, value)
    served = serve(mini_build)
    assert served.wait_exit() == 1
    assert served.stderr.startswith(f"kobart-serve: model kobart failed to load: {message}")
    assert served.stderr.count("\n") == 1


def test_a_build_that_would_ignore_the_flags_is_refused(
    mini_build: Path, tmp_path: Path, serve: Serve
) -> None:
    older = limited_copy(mini_build, tmp_path / "older")
    (older / "kobart/1/kobart_runtime/serving_options.py").unlink()
    served = serve(older, "--threads=2")
    assert served.wait_exit() == 2
    assert "was built before limits and threads could be changed" in served.stderr
    assert "build again, or leave these flags out" in served.stderr
