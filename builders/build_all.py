"""Build a Triton model repository from a BART checkpoint: the command `kobart-build`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a file from a checkout that is not installed
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from kobart_runtime.required_packages import required_packages

with required_packages("kobart-build", "build"):
    from builders.config import OPTIONS, BuildConfig, read_yaml
    from kobart_runtime.errors import KobartError

EPILOG = """\
examples:
  python builders/build_all.py                              the small model of assets/kobart-mini
  python builders/build_all.py --checkpoint my/fine-tune --max-beams 4 --output build/mine
  python builders/build_all.py --prune structured=0.2       smaller layers, then the export
  python builders/build_all.py --precision int8             calibrated on the dev documents
  python builders/build_all.py --config build.yaml --force  options from a file; flags win

The build is the folder OUTPUT: serve it with `kobart-serve OUTPUT`, or copy it anywhere.
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code: 0, 1 for an error of the build, 130 when interrupted; argparse exits by 2.
    """
    options = vars(build_parser().parse_args(arguments))
    try:
        config_file = options.pop("config", None)
        from_file = read_yaml(Path(config_file)) if config_file else {}
        config = BuildConfig(**{**from_file, **options})
        with required_packages("kobart-build", "build"):
            from builders.pipeline import build  # torch takes seconds: not for --help or a typo

        build(config)
    except (KobartError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: nothing was built", file=sys.stderr)
        return 130
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The command line; every option and default comes from `BuildConfig`."""
    parser = argparse.ArgumentParser(
        prog="kobart-build",
        description="Turn a BART checkpoint into a folder that Triton serves: export, compare "
        "with PyTorch, lay out.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for name in OPTIONS:
        _add_option(parser, name)
    parser.add_argument(
        "--config",
        metavar="FILE.yaml",
        default=argparse.SUPPRESS,
        help="options from a YAML file, under the same names; flags win",
    )
    return parser


def _add_option(parser: argparse.ArgumentParser, name: str) -> None:
    """Add one flag. It is absent from the result unless given, so that a file can set it."""
    option = OPTIONS[name]
    known = option.metadata
    settings: dict[str, Any] = {
        "default": argparse.SUPPRESS,
        "help": _help(known["help"], option.default),
    }
    flag = f"--{name.replace('_', '-')}"
    if name == "force":
        parser.add_argument(flag, action="store_true", **settings)
    elif known["kind"] is bool:
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, **settings)
    elif known["kind"] is tuple:
        parser.add_argument(flag, action="append", metavar=known["metavar"], **settings)
    elif known["choices"]:
        parser.add_argument(flag, choices=known["choices"], **settings)
    else:
        parser.add_argument(flag, type=known["kind"], metavar=known["metavar"], **settings)


def _help(text: str, default: object) -> str:
    return text if default is None else f"{text} (default: {default})"


if __name__ == "__main__":
    sys.exit(main())
