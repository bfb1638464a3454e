"""What is measured: a build and its facts, the documents, a server of the build."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from builders.paths import DEFAULT_CHECKPOINT_FOLDER
from kobart_documents import add_reading_flags
from kobart_runtime.model_config import (
    MANIFEST_NAME,
    TOKENIZER_FILE,
    ModelConfig,
    sha256_of,
)
from server.build_folder import BuildFolder
from server.supervisor import TritonServer, free_ports

DEFAULT_DATA = DEFAULT_CHECKPOINT_FOLDER / "dev.jsonl"


def add_documents(parser: argparse.ArgumentParser, *, summaries: bool) -> None:
    """Add `--data` and how its file is read.

    Args:
        parser: Of a command that measures on documents.
        summaries: Whether their summaries are read too.
    """
    kind = "documents with their summaries" if summaries else "documents"
    parser.add_argument(
        "--data",
        type=Path,
        default=DEFAULT_DATA,
        metavar="FILE",
        help=f"{kind} (default: kobart-mini's dev set)",
    )
    add_reading_flags(parser, summaries=summaries)


@dataclass(frozen=True, kw_only=True)
class BuildFacts:
    """A build, as a report names it."""

    path: Path
    config: ModelConfig
    prune: tuple[str, ...]  # as it was asked for
    checkpoint: str  # as it was asked for
    checkpoint_files: Mapping[str, str]  # file name -> sha256
    adapter: str | None  # folder of what was merged into the checkpoint's weights
    num_parameters: int  # of the checkpoint, as it was built
    is_trained: bool  # False: random weights, whose summaries mean nothing

    @classmethod
    def read(cls, path: Path) -> BuildFacts:
        """Look at a build.

        Raises:
            BuildError: It is none, or one of another version.
        """
        folder = BuildFolder.read(path)
        manifest_path = folder.path / MANIFEST_NAME
        config = ModelConfig.from_manifest(manifest_path)
        manifest = json.loads(manifest_path.read_text(encoding="utf-8"))
        checkpoint = manifest.get("checkpoint", {})
        return cls(
            path=folder.path,
            config=config,
            prune=tuple((manifest.get("pruning") or {}).get("requested", ())),
            checkpoint=checkpoint.get("source", ""),
            checkpoint_files=checkpoint.get("files", {}),
            adapter=(checkpoint.get("adapter") or {}).get("source"),
            num_parameters=checkpoint.get("parameters", 0),
            is_trained=checkpoint.get("trained", True),
        )

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def engines(self) -> Path:
        """Where the front model keeps its engines."""
        return self.path / self.config.name / "1"

    def load_options(self, checkpoint: str) -> dict[str, str | None]:
        """How `load_checkpoint` makes the model that this build was made from.

        The tokenizer is the build's. The adapter is merged into the weights that the build merged
        it into, and not into those of a checkpoint that already has it.

        Raises:
            CheckpointError: There is no such checkpoint.
        """
        # Imported here: it takes seconds, and most commands need no checkpoint.
        from builders.checkpoint import RANDOM_CHECKPOINT
        from builders.checkpoint_files import find_files, weight_files

        if checkpoint == RANDOM_CHECKPOINT:
            return {}
        options: dict[str, str | None] = {"tokenizer": str(self.engines / TOKENIZER_FILE)}
        if self.adapter:
            files = weight_files(find_files(checkpoint).folder)
            if all(self.checkpoint_files.get(file.name) == sha256_of(file) for file in files):
                options["adapter"] = self.adapter
        return options

    @property
    def size_mb(self) -> float:
        """Of the two engines; an int8 build has portable graphs too, which it does not open."""
        files = [self.engines / name for name in self.config.engines.files]
        return sum(file.stat().st_size for file in files) / 1e6

    @property
    def subject(self) -> dict[str, str]:
        """What a report says of it."""
        facts = {
            "build": self.name,
            "precision": self.config.precision,
            "runtime": self.config.runtime,
        }
        return facts | ({"pruning": ", ".join(self.prune)} if self.prune else {})


@contextmanager
def serving(build: Path, log: Path, *models: str) -> Iterator[TritonServer]:
    """The real Triton on free ports of this machine alone, for as long as the block runs.

    Raises:
        KobartError: It does not start; says why.
    """
    http_port, grpc_port, metrics_port = free_ports(3)
    with (
        log.open("w", encoding="utf-8") as sink,
        TritonServer(
            build,
            models=models,
            http_port=http_port,
            grpc_port=grpc_port,
            metrics_port=metrics_port,
            exit_timeout_s=10.0,
            log=sink,
        ) as server,
    ):
        yield server
