"""What tests of all packages share: the sources they read and one build of kobart-mini."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.kobart_like import SENTENCES, write_tokenizer
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


KOBART_KINDS = ["kobart-like", *(["kobart"] if (SHARED / "kobart_tokenizer").is_dir() else [])]


@pytest.fixture(scope="session", params=KOBART_KINDS)
def kobart_tokenizer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a tokenizer that is built as KoBART's, and of KoBART's own where it is."""
    return tokenizer_folder(request.param, tmp_path_factory)


def tokenizer_folder(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `kobart-mini`, `kobart-like`, or `kobart` where it is."""
    if kind == "kobart-mini":
        return MINI_CHECKPOINT
    if kind == "kobart-like":
        return write_tokenizer(tmp_path_factory.mktemp("kobart") / "like", MINI_CHECKPOINT)
    folder = SHARED / "kobart_tokenizer"
    if not (folder / "tokenizer.json").exists():
        pytest.skip(f"KoBART's tokenizer is not at {folder}")
    return folder


@pytest.fixture(scope="session")
def sentences(dialogues: list[str]) -> list[str]:
    """Our own sentences, then those of KLUE-NLI where they are, then lines of dialogues."""
    lines = [line for dialogue in dialogues for line in dialogue.splitlines()]
    return list(dict.fromkeys([*SENTENCES, *klue_sentences(), *lines]))


def klue_sentences() -> list[str]:
    """Premises and hypotheses of KLUE-NLI; none where the file is not."""
    path = SHARED / "klue" / "klue-nli-v1.1_dev.json"
    if not path.exists():
        return []
    pairs = json.loads(path.read_text(encoding="utf-8"))
    return [pair[key] for pair in pairs for key in ("premise", "hypothesis")]


@pytest.fixture(scope="session")
def dialogues() -> list[str]:
    """The dev dialogues of kobart-mini."""
    lines = (MINI_CHECKPOINT / "dev.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["dialogue"] for line in lines]
