"""Where the checkout keeps what a build is made from."""

from __future__ import annotations

from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
MODEL_REPOSITORY = CHECKOUT / "model_repository"
RUNTIME_PACKAGE = CHECKOUT / "kobart_runtime"
# A name that is found from every working directory; as a path it is DEFAULT_CHECKPOINT_FOLDER.
DEFAULT_CHECKPOINT = "assets/kobart-mini"
DEFAULT_CHECKPOINT_FOLDER = CHECKOUT / DEFAULT_CHECKPOINT
DEFAULT_TOKENIZER = DEFAULT_CHECKPOINT_FOLDER / "tokenizer.json"
DOCS = CHECKOUT / "docs"
KEPT_BUILDS = CHECKOUT / "build"  # benchmarks build here once, wherever they are started
