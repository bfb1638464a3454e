"""Fine-tune a BART checkpoint, pruned or to be pruned: the command `kobart-finetune`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from kobart_runtime.required_packages import required_packages

with required_packages("kobart-finetune", "build"):
    from kobart_runtime.errors import KobartError
    from training.finetune_config import OPTIONS, FinetuneConfig

EPILOG = """\
FILE is .jsonl (one {"dialogue": "...", "summary": "..."} a line), .csv, .tsv or .parquet; further
columns are ignored, rows with a blank text or summary are left out. Weights that are exactly zero
stay zero: what was pruned, here or earlier, stays pruned. OUTPUT gets the weights with the lowest
dev loss, the tokenizer, dev.jsonl, and finetune.json with ROUGE before and after, settings and
versions.

examples:
  kobart-finetune --train train.csv --dev dev.csv --output my/checkpoint
  kobart-finetune --prune global=0.4 --train train.jsonl --epochs 2 --output my/sparse
  kobart-finetune --prune structured=0.2 --train train.jsonl --output my/small
  kobart-build --checkpoint my/small            serve the result

An interrupted run goes on from its last evaluation when the same command is given with --resume.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code: 0, 1 for an error, 130 when interrupted; argparse exits by 2.
    """
    options = vars(build_parser().parse_args(arguments))
    resume, force = options.pop("resume"), options.pop("force")
    try:
        config = FinetuneConfig(**{name: _as_tuple(value) for name, value in options.items()})
        with required_packages("kobart-finetune", "build"):
            from training.finetune_pipeline import finetune  # torch takes seconds: not for --help

        finetune(config, resume=resume, force=force)
    except (KobartError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: if the training had begun, add --resume to go on", file=sys.stderr)
        return 130
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The command line; options and defaults come from `FinetuneConfig`."""
    parser = argparse.ArgumentParser(
        prog="kobart-finetune",
        description="Fine-tune a KoBART checkpoint on dialogues and summaries, optionally after "
        "pruning it, and measure ROUGE before and after.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for name in OPTIONS:
        _add_option(parser, name)
    parser.add_argument(
        "--resume", action="store_true", help="go on with an interrupted run of this output"
    )
    parser.add_argument(
        "--force", action="store_true", help="replace the output, and an interrupted run of it"
    )
    return parser


def _add_option(parser: argparse.ArgumentParser, name: str) -> None:
    option = OPTIONS[name]
    known = option.metadata
    settings: dict[str, Any] = {
        "default": argparse.SUPPRESS,
        "metavar": known["metavar"],
        "help": known["help"],
        "required": option.default == "",
    }
    flag = f"--{name.replace('_', '-')}"
    if known["kind"] is tuple:
        parser.add_argument(flag, action="append", **settings)
        return
    if option.default not in ("", None):
        settings["help"] += f" (default: {option.default})"
    parser.add_argument(flag, type=known["kind"], **settings)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


if __name__ == "__main__":
    sys.exit(main())
