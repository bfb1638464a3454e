"""Where the checkout keeps what a build is made from."""

from __future__ import annotations

from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
MODEL_REPOSITORY = CHECKOUT / "model_repository"
RUNTIME_PACKAGE = CHECKOUT / "kobart_runtime"
DEFAULT_CHECKPOINT = "assets/kobart-mini"
DEFAULT_TOKENIZER = CHECKOUT / DEFAULT_CHECKPOINT / "tokenizer.json"
