"""What NVIDIA's compiler says while it builds an engine, as data.

Without a driver its log is the only account of an engine: a line for each layer, with names, types
and shapes, and a few lines about memory. A layer is a kernel unless it only orders others.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from kobart_runtime.bindings import is_past

_LAYER = re.compile(r"^Name: (?P<name>.+?), LayerType: (?P<kind>\w+), Inputs: \[(?P<inputs>.*)")
_INPUTS_END = re.compile(r"\], (?:Constants|Outputs): \[")
_TENSOR = re.compile(r"Name: (?P<name>[^,]+?)(?: \[profile \d+\])?, .*?Datatype: (?P<type>\w+)")
_PROFILE = re.compile(r"_myl(\d+)_\d+$")  # of a layer's name
_GENERATED = re.compile(r"^__myl_(\w+?)_myl\d+_\d+$")  # named after its operations
_ACTIVATIONS = re.compile(r"^Total Activation Memory: (\d+) bytes")
_WEIGHTS = re.compile(r"^Total Weights Memory: (\d+) bytes")
_ORDERING = ("signal", "wait", "shape_call")  # kinds of layers that compute nothing
_MOVES = {"Move", "Repl", "Conc", "Resh", "Tran", "Slic", "Copy", "Expa", "Sque", "Unsq"}
_LOWEST_FIRST = ("Int8", "Half", "Float")


@dataclass(frozen=True)
class Kernel:
    """One kernel of one profile."""

    name: str
    kind: str  # as the compiler calls it: gemm, kgen, runtime_fusion ...
    profile: int
    inputs: tuple[str, ...]
    types: frozenset[str]  # of what it reads, constants included

    @property
    def is_attention(self) -> bool:
        """Whether it is a whole attention: both products and the softmax."""
        return "mha" in self.name

    @property
    def is_product(self) -> bool:
        """Whether it is a matrix product, with or without what comes before and behind."""
        return not self.is_attention and (self.kind == "gemm" or "Fc" in self._operations)

    @property
    def is_copy(self) -> bool:
        """Whether it only moves values."""
        return bool(self._operations) and set(self._operations) <= _MOVES

    @property
    def product_type(self) -> str:
        """The lowest type that a product reads."""
        return next((kind for kind in _LOWEST_FIRST if kind in self.types), "other")

    @property
    def _operations(self) -> list[str]:
        """For example Resh, Tran, Move; empty where the name does not say."""
        named = _GENERATED.match(self.name)
        return re.findall("[A-Z][a-z]*", named[1]) if named else []


@dataclass(frozen=True, kw_only=True)
class ProfileFacts:
    """What one run of an engine takes, under one optimization profile."""

    activation_bytes: int  # scratch memory at the profile's largest shapes
    num_kernels: int
    kinds: dict[str, int]
    num_attentions: int  # fused
    products: dict[str, int]  # type -> kernels
    num_copies: int  # kernels that only move values
    num_kv_copies: int  # those among them that read the keys or values of a cache


@dataclass
class CompilerLog:
    """Collects what the compiler says."""

    lines: list[tuple[str, str]] = field(default_factory=list)  # severity, text

    def add(self, severity: str, text: str) -> None:
        """Take one message."""
        self.lines.append((severity, text))

    @property
    def errors(self) -> list[str]:
        """What it says is wrong."""
        return [text for severity, text in self.lines if severity.endswith("error")]

    @property
    def warnings(self) -> list[str]:
        """What it warns of."""
        return [text for severity, text in self.lines if severity == "warning"]

    @property
    def weight_bytes(self) -> int:
        """Memory of the weights, once an engine was built."""
        return next(self._numbers(_WEIGHTS), 0)

    def profiles(self) -> list[ProfileFacts]:
        """One entry for each optimization profile."""
        kernels = [kernel for line in self._lines() for kernel in _kernels(line)]
        return [
            _facts([kernel for kernel in kernels if kernel.profile == index], num_bytes)
            for index, num_bytes in enumerate(self._numbers(_ACTIVATIONS))
        ]

    def _lines(self) -> Iterable[str]:
        for _, text in self.lines:
            yield from text.splitlines()

    def _numbers(self, pattern: re.Pattern[str]) -> Iterator[int]:
        return (int(found[1]) for line in self._lines() if (found := pattern.match(line)))


def _kernels(line: str) -> Iterable[Kernel]:
    layer = _LAYER.match(line)
    if not layer or layer["kind"] in _ORDERING:
        return
    profile = _PROFILE.search(layer["name"])
    read = _INPUTS_END.split(layer["inputs"], maxsplit=1)[0]
    every = layer["inputs"].split("Outputs: [", maxsplit=1)[0]
    yield Kernel(
        name=layer["name"],
        kind=layer["kind"],
        profile=int(profile[1]) if profile else 0,
        inputs=tuple(found["name"] for found in _TENSOR.finditer(read)),
        types=frozenset(found["type"] for found in _TENSOR.finditer(every)),
    )


def _facts(kernels: list[Kernel], activation_bytes: int) -> ProfileFacts:
    copies = [kernel for kernel in kernels if kernel.is_copy]
    return ProfileFacts(
        activation_bytes=activation_bytes,
        num_kernels=len(kernels),
        kinds=dict(Counter(kernel.kind for kernel in kernels)),
        num_attentions=sum(kernel.is_attention for kernel in kernels),
        products=dict(Counter(kernel.product_type for kernel in kernels if kernel.is_product)),
        num_copies=len(copies),
        num_kv_copies=sum(any(map(is_past, kernel.inputs)) for kernel in copies),
    )
