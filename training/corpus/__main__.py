"""`python -m training.corpus`: write synthetic dialogues with their summaries as JSON lines."""

from __future__ import annotations

import argparse
import json
import sys
from itertools import islice
from typing import get_args

from training.corpus.dialogue import CorpusConfig, Split, generate

EPILOG = "example: python -m training.corpus --count 2000 > train.jsonl"


def main(arguments: list[str] | None = None) -> int:
    """Print pairs on standard output.

    Returns:
        The exit code; argparse exits by 2.
    """
    parser = argparse.ArgumentParser(
        prog="python -m training.corpus",
        description="Write synthetic Korean dialogues and summaries, one JSON object a line.",
        epilog=EPILOG,
    )
    parser.add_argument("--count", type=_count, default=1000, help="dialogues (default: 1000)")
    parser.add_argument(
        "--split",
        choices=get_args(Split),
        default="train",
        help="no dialogue is in two of them (default: train)",
    )
    parser.add_argument("--seed", default=CorpusConfig.seed, help="any text (default: %(default)s)")
    options = parser.parse_args(arguments)
    config = CorpusConfig(seed=options.seed, split=options.split)
    for example in islice(generate(config), options.count):
        print(json.dumps(example.to_json(), ensure_ascii=False))
    return 0


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {count}")
    return count


if __name__ == "__main__":
    sys.exit(main())
