"""Korean morphemes through kiwipiepy, whose model comes with the package: no network is needed."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from kobart_runtime.errors import ConfigError

Morphemes = Callable[[str], list[str]]


@cache
def morpheme_splitter() -> Morphemes:
    """A function from a text to its morphemes, each with its part of speech.

    Raises:
        ConfigError: kiwipiepy is not installed.
    """
    try:
        from kiwipiepy import Kiwi
    except ImportError as error:
        raise ConfigError(
            f"morphemes need kiwipiepy ({error}): pip install 'kobart-triton[morphemes]'"
        ) from error
    kiwi = Kiwi(num_workers=1)
    return lambda text: [f"{token.form}/{token.tag}" for token in kiwi.tokenize(text)]
