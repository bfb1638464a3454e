"""What tests of all packages share: the sources they read and one build of kobart-mini."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.patience import PATIENCE_S
from tests.server.served import Served

REPOSITORY = Path(__file__).resolve().parents[1]
MINI_CHECKPOINT = REPOSITORY / "assets" / "kobart-mini"
# Warnings are errors, but for the one that pyproject.toml tells of.
STRICT_PYTHON = (
    *(sys.executable, "-W", "error"),
    *("-W", "ignore:Type google._upb._message.:DeprecationWarning"),
)
SHARED = REPOSITORY.parent / "shared"  # real data that may not be redistributed here


def pytest_configure() -> None:
    """Let the commands that tests start be interrupted, wherever the tests themselves run.

    A shell starts background jobs with SIGINT ignored, and what they start inherits that. A signal
    with a handler, on the other hand, has its default action in a new program.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def mini_build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of assets/kobart-mini, as `kobart-build` makes it on a machine without a GPU."""
    # Imported here: torch and transformers take seconds that most tests do not need.
    from builders.config import BuildConfig
    from builders.pipeline import build

    output = tmp_path_factory.mktemp("build") / "kobart-fp32"
    return build(
        BuildConfig(
            checkpoint=str(MINI_CHECKPOINT),
            runtime="onnxruntime",
            output=str(output),
            max_request_seconds=PATIENCE_S,
        )
    )


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Starts kobart-serve on builds; whatever still runs at the end is killed."""
    started: list[Served] = []
    with ExitStack() as stack:

        def start(*arguments: str | Path) -> Served:
            served = Served(arguments, tmp_path / f"serve-{len(started)}")
            started.append(served)
            stack.callback(served.kill)
            return served

        yield start


@pytest.fixture(scope="session")
def real_tokenizer() -> Path:
    """The folder of KoBART's own tokenizer."""
    folder = SHARED / "kobart_tokenizer"
    if not (folder / "tokenizer.json").exists():
        pytest.skip(f"KoBART's tokenizer is not at {folder}")
    return folder


@pytest.fixture(scope="session")
def klue_sentences() -> list[str]:
    """Real Korean sentences of KLUE-NLI."""
    path = SHARED / "klue" / "klue-nli-v1.1_dev.json"
    if not path.exists():
        pytest.skip(f"KLUE-NLI is not at {path}")
    return read_klue(path)


def read_klue(path: Path) -> list[str]:
    """Premises and hypotheses of a KLUE-NLI file."""
    pairs = json.loads(path.read_text(encoding="utf-8"))
    return [pair[key] for pair in pairs for key in ("premise", "hypothesis")]


@pytest.fixture(scope="session")
def dialogues() -> list[str]:
    """The dev dialogues of kobart-mini."""
    lines = (MINI_CHECKPOINT / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["dialogue"] for line in lines]
