"""Calibrate a float32 build: `python -m calibration BUILD --data FILE --output scales.json`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from calibration.calibrator import calibrate
from calibration.documents import Encoders, encode_pairs
from calibration.ranges import METHODS
from calibration.scales import SCALES_FILE
from kobart_documents import ReadOptions, add_reading_flags, read_pairs
from kobart_documents.options import FORMATS
from kobart_runtime.errors import BuildError, ConfigError, KobartError
from kobart_runtime.model_config import MANIFEST_NAME, TOKENIZER_FILE, ModelConfig


def main(arguments: list[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code: 0, 1 for an error, 130 when interrupted; argparse exits by 2.
    """
    options = _parser().parse_args(arguments)
    try:
        _calibrate(options)
    except (KobartError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: nothing was written", file=sys.stderr)
        return 130
    return 0


def _calibrate(options: argparse.Namespace) -> None:
    build, output = Path(options.build), Path(options.output)
    if not output.absolute().parent.is_dir():
        raise ConfigError(f"the folder of --output {output} does not exist: create it first")
    config = _read_config(build)
    if (config.runtime, config.precision) != ("onnxruntime", "fp32"):
        raise BuildError(
            f"{build} is {config.precision} for {config.runtime}: calibrate an fp32 build for "
            "onnxruntime"
        )
    file = read_pairs(Path(options.data), ReadOptions.given(options))
    folder = build / config.name / "1"  # of the front model, which holds both engines
    encoders = Encoders.from_tokenizer(
        folder / TOKENIZER_FILE,
        config.tokenizer,
        config.ids,
        config.limits,
        config.shape.vocab_size,
    )
    documents = encode_pairs(file, encoders)
    scales = calibrate(folder, config.shape, documents, method=options.method, progress=True)
    scales.write(output)
    print(f"{len(documents.documents)} documents -> {output}")


def _read_config(build: Path) -> ModelConfig:
    try:
        return ModelConfig.from_manifest(build / MANIFEST_NAME)
    except BuildError as error:
        raise BuildError(f"{build} is not a build ({error}): give kobart-build's OUTPUT") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m calibration",
        description="Int8 scales for the activations of a float32 build, from documents.",
    )
    parser.add_argument("build", metavar="BUILD", help="folder of an fp32 build for ONNX Runtime")
    parser.add_argument(
        "--data",
        required=True,
        metavar="FILE",
        help=f"documents with their summaries: {FORMATS}",
    )
    add_reading_flags(parser)
    parser.add_argument(
        "--output",
        default=SCALES_FILE,
        metavar="FILE",
        help="gets the scales (default: %(default)s, in the working directory)",
    )
    parser.add_argument(
        "--method",
        choices=tuple(METHODS),
        default="entropy",
        help="entropy clips outliers where that is more exact, minmax never (default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
