"""The tiny checkpoints of the builders' tests."""

from tests.builders.conftest import make_checkpoint, tokenizer_json

__all__ = ["make_checkpoint", "tokenizer_json"]
