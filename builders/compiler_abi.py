"""NVIDIA's compiler library by its binary interface: which function is called, and how.

The wheel of TensorRT for RTX holds TensorRT's ONNX parser and builder as two C++ libraries that
need no GPU, no CUDA and no driver. It has no Python bindings for them. A C++ object begins with a
pointer to the table of its virtual functions; they are called here by their places in that table,
which are those of NVIDIA's headers (NvInferImpl.h, NvOnnxParser.h) of one version. Any other
version is refused.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import POINTER, byref, c_bool, c_char_p, c_int32, c_int64, c_size_t, c_uint32, c_void_p
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from kobart_runtime.errors import BuildError, ConfigError

PACKAGE = "onnxruntime_ep_nv_tensorrt_rtx"
VERSION = 10701  # 1.7.1, as the library reports it
WHEEL = "onnxruntime-ep-nv-tensorrt-rtx-cu12==0.5.0"
INSTALL = f"pip install {WHEEL}"
MAX_RANK = 8
SEVERITIES = ("internal error", "error", "warning", "info", "verbose")
DATA_TYPES = (
    "FP32", "FP16", "INT8", "INT32", "BOOL", "UINT8", "FP8", "BF16", "INT64", "INT4", "FP4",
)  # fmt: skip
_SHAPE_ENDS = ("min", "opt", "max")
_WORKSPACE, _DETAILED = 0, 2  # MemoryPoolType, ProfilingVerbosity

Log = Callable[[str, str], None]  # severity, text


class Library:
    """Both libraries, loaded, of the one version that this file is written for."""

    def __init__(self, log: Log) -> None:
        """Load them.

        Args:
            log: Takes everything that the compiler says.

        Raises:
            ConfigError: The wheel is not installed.
            BuildError: It holds another version.
        """
        folder = wheel_folder()
        builder, parser = (
            _load(folder, name) for name in ("libtensorrt_rtx", "libtensorrt_onnxparser_rtx")
        )
        found = builder.getInferLibVersion()
        if found != VERSION:
            raise BuildError(
                f"{folder} holds version {found} of TensorRT for RTX, this program is written for "
                f"{VERSION}: {INSTALL}"
            )
        self._builders = _function(builder, "createInferBuilder_INTERNAL", c_void_p, c_int32)
        self._parsers = _function(
            parser, "createNvOnnxParser_INTERNAL", c_void_p, c_void_p, c_int32
        )
        self._parser_version = parser.getNvOnnxParserVersion()
        self._logger = _Logger(log)

    def builder(self) -> Builder:
        """A new builder."""
        return Builder(self._builders(self._logger.address, VERSION))

    def parser(self, network: Network) -> Parser:
        """A parser that fills a network."""
        pointer = self._parsers(network.address, self._logger.address, self._parser_version)
        return Parser(pointer)


def wheel_folder() -> Path:
    """Where the libraries lie; the package is not imported, which would write into it.

    Raises:
        ConfigError: The wheel is not installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ConfigError(
            f"NVIDIA's compiler is not installed: {INSTALL} (Linux on x86-64, 170 MB; its "
            "licence is NVIDIA's own)"
        )
    return Path(spec.submodule_search_locations[0])


def _load(folder: Path, name: str) -> ctypes.CDLL:
    files = sorted(folder.glob(f"{name}.so.*.*"))
    if len(files) != 1:
        raise BuildError(f"{folder} holds {len(files)} files {name}.so.*, expected one: {INSTALL}")
    try:
        return ctypes.CDLL(str(files[0]), mode=ctypes.RTLD_GLOBAL)  # the parser needs the builder's
    except OSError as error:
        raise BuildError(f"{files[0]} cannot be loaded: {error}") from error


def _function(library: ctypes.CDLL, name: str, *types: Any) -> Any:
    function = getattr(library, name)
    function.restype, function.argtypes = c_void_p, types
    return function


class _Dims(ctypes.Structure):
    """nvinfer1::Dims64."""

    _fields_ = (("rank", c_int32), ("sizes", c_int64 * MAX_RANK))


class _Logger:
    """nvinfer1::ILogger, written in Python: a table of functions, and what points to it."""

    def __init__(self, log: Log) -> None:
        def write(_this: int, severity: int, text: bytes) -> None:
            log(SEVERITIES[severity], text.decode(errors="replace"))

        # The functions before `log` are an interface's name and destructors: never called.
        self._unused = ctypes.CFUNCTYPE(c_void_p, c_void_p)(lambda _this: None)
        self._write = ctypes.CFUNCTYPE(None, c_void_p, c_int32, c_char_p)(write)
        unused, written = (ctypes.cast(f, c_void_p) for f in (self._unused, self._write))
        self._table = (c_void_p * 5)(unused, unused, unused, unused, written)
        self._object = (c_void_p * 1)(ctypes.addressof(self._table))
        self.address = ctypes.addressof(self._object)


class _Interface:
    """A C++ object whose own table holds its functions."""

    def __init__(self, address: int | None) -> None:
        if not address:
            raise BuildError(f"NVIDIA's compiler made no {type(self).__name__}; its log says why")
        self.address = address

    @property
    def _functions(self) -> int:
        return self.address

    def _call(self, place: int, result: Any, *arguments: tuple[Any, Any]) -> Any:
        """Call the function at a place of the table with (type, value) pairs."""
        table = ctypes.cast(self._functions, POINTER(POINTER(c_void_p)))[0]
        types = [kind for kind, _ in arguments]
        function = ctypes.CFUNCTYPE(result, c_void_p, *types)(table[place] or 0)
        return function(self._functions, *(value for _, value in arguments))


class _Wrapped(_Interface):
    """TensorRT's own classes: a destructor of their own, then the object that does the work."""

    @property
    def _functions(self) -> int:
        return ctypes.cast(self.address, POINTER(c_void_p))[1] or 0


class Builder(_Wrapped):
    """nvinfer1::IBuilder."""

    def create_config(self) -> BuilderConfig:
        """An empty configuration."""
        return BuilderConfig(self._call(5, c_void_p))

    def create_network(self) -> Network:
        """An empty, strongly typed network."""
        return Network(self._call(6, c_void_p, (c_uint32, 0)))

    def create_profile(self) -> Profile:
        """An empty optimization profile."""
        return Profile(self._call(7, c_void_p))

    def build(self, network: Network, config: BuilderConfig) -> bytes | None:
        """The serialized engine; None: the log says why there is none."""
        plan = self._call(11, c_void_p, (c_void_p, network.address), (c_void_p, config.address))
        return HostMemory(plan).content() if plan else None


class BuilderConfig(_Wrapped):
    """nvinfer1::IBuilderConfig."""

    def add_profile(self, profile: Profile) -> bool:
        """Add an optimization profile; false: it was refused."""
        return bool(self._call(23, c_int32, (c_void_p, profile.address)) >= 0)

    def describe_layers(self) -> None:
        """Let the log tell every layer with its types and shapes."""
        self._call(25, None, (c_int32, _DETAILED))

    def limit_workspace(self, num_bytes: int) -> None:
        """Scratch memory that a layer may use; without a call, as much as it wants."""
        self._call(32, None, (c_int32, _WORKSPACE), (c_size_t, num_bytes))

    def set_targets(self, capabilities: Sequence[int]) -> bool:
        """Compute capabilities to build for, such as 89; false: one is refused."""
        accepted = self._call(55, c_bool, (c_int32, len(capabilities)))
        return bool(accepted) and all(
            self._call(57, c_bool, (c_int32, capability), (c_int32, index))
            for index, capability in enumerate(capabilities)
        )


class Network(_Wrapped):
    """nvinfer1::INetworkDefinition."""

    @property
    def num_layers(self) -> int:
        """Layers that the parser made."""
        return int(self._call(12, c_int32))

    def inputs(self) -> list[Tensor]:
        """All inputs, in their order."""
        count = self._call(14, c_int32)
        return [Tensor(self._call(15, c_void_p, (c_int32, i))) for i in range(count)]

    def outputs(self) -> list[Tensor]:
        """All outputs, in their order."""
        count = self._call(16, c_int32)
        return [Tensor(self._call(17, c_void_p, (c_int32, i))) for i in range(count)]


class Tensor(_Wrapped):
    """nvinfer1::ITensor."""

    @property
    def name(self) -> str:
        """Its name in the graph."""
        return bytes(self._call(3, c_char_p)).decode()

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape; -1 where it is dynamic."""
        dims = self._call(5, _Dims)
        return tuple(dims.sizes[: max(dims.rank, 0)])

    @property
    def data_type(self) -> str:
        """Its type, as in `DATA_TYPES`."""
        return DATA_TYPES[self._call(6, c_int32)]


class Profile(_Wrapped):
    """nvinfer1::IOptimizationProfile."""

    def set_shapes(self, name: str, **ends: Sequence[int]) -> bool:
        """Set the min, opt and max shape of an input; false: one is refused."""
        return all(
            self._call(
                2,
                c_bool,
                (c_char_p, name.encode()),
                (c_int32, _SHAPE_ENDS.index(end)),
                (POINTER(_Dims), byref(_Dims(len(shape), (c_int64 * MAX_RANK)(*shape)))),
            )
            for end, shape in ends.items()
        )

    @property
    def is_valid(self) -> bool:
        """Whether the shapes fit each other."""
        return bool(self._call(7, c_bool))


class HostMemory(_Wrapped):
    """nvinfer1::IHostMemory."""

    def content(self) -> bytes:
        """A copy of the bytes."""
        return ctypes.string_at(self._call(2, c_void_p), self._call(3, c_size_t))


class Parser(_Interface):
    """nvonnxparser::IParser; it holds the weights, so it must outlive the build."""

    def parse(self, path: Path) -> bool:
        """Fill the network from an ONNX file; false: see `errors`."""
        arguments = (c_char_p, str(path).encode()), (c_int32, SEVERITIES.index("warning"))
        return bool(self._call(1, c_bool, *arguments))

    def errors(self) -> list[ParserError]:
        """Why the last file was refused."""
        count = self._call(3, c_int32)
        return [ParserError(self._call(4, c_void_p, (c_int32, i))) for i in range(count)]


class ParserError(_Interface):
    """nvonnxparser::IParserError."""

    @property
    def message(self) -> str:
        """What is wrong."""
        return self._text(1)

    @property
    def node_name(self) -> str:
        """Where in the graph."""
        return self._text(6)

    @property
    def operator(self) -> str:
        """What that node computes."""
        return self._text(7)

    def _text(self, place: int) -> str:
        return bytes(self._call(place, c_char_p) or b"").decode(errors="replace")
