"""ONNX Runtime's profile of an engine, by operator group and by layer."""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime

from benchmarks.engine_feeds import Feeds
from kobart_runtime.errors import EngineError

# The first that matches a node's name or its operator; what none matches is "other".
_GROUPS = (
    ("feed-forward", re.compile(r"fc1|fc2|Gelu")),
    ("attention projections", re.compile(r"[qkv]_proj|out_proj|self_projections")),
    ("layer norms", re.compile(r"layer_?norm", re.IGNORECASE)),
    ("embeddings", re.compile(r"embed")),
    ("attention products", re.compile(r"MatMul|Softmax")),
    (
        "shapes and copies",
        re.compile(
            r"^(Shape|Gather|Slice|Concat|Reshape|Transpose|Unsqueeze|Squeeze|Cast|Expand|Split)$"
        ),
    ),
    ("elementwise", re.compile(r"^(Add|Sub|Mul|Div|Where|Equal|Less|Greater|Reduce\w+)$")),
)
_HEAD = "language-model head"
_CROSS = "cross-attention K/V"
_END_OF_LAYER = re.compile(r"final_layer_norm")
_NODE_EVENT = "_kernel_time"


@dataclass(frozen=True, kw_only=True)
class OperatorProfile:
    """Microseconds of one call: each operator's median over the calls."""

    by_group: dict[str, float]
    by_layer: dict[str, float]

    @property
    def total_us(self) -> float:
        """Of all operators."""
        return sum(self.by_group.values())


def profile_engine(
    path: Path, outputs: list[str], feeds: Feeds, folder: Path, num_calls: int
) -> OperatorProfile:
    """Run an ONNX file with the profiler on.

    Args:
        path: The engine.
        outputs: What is asked of it.
        feeds: Its inputs.
        folder: For the profiler's file.
        num_calls: Calls that count, after two that do not.

    Raises:
        EngineError: It cannot be loaded or run.
    """
    options = onnxruntime.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / path.stem)
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
        for _ in range(num_calls + 2):
            session.run(outputs, feeds)
    except Exception as error:  # ONNX Runtime's exceptions share no base class
        raise EngineError(f"{path} cannot be profiled: {error}") from error
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    nodes = [event for event in events if event["name"].endswith(_NODE_EVENT)]
    num_nodes = len(nodes) // (num_calls + 2)
    return summarize(nodes[2 * num_nodes :], num_nodes)


def summarize(nodes: list[dict[str, Any]], num_nodes: int) -> OperatorProfile:
    """Sum up the profiler's events.

    Args:
        nodes: In the order in which they ran, some calls one after the other.
        num_nodes: Of one call.
    """
    by_group: Counter[str] = Counter()
    by_layer: Counter[str] = Counter()
    names = [str(node["name"]).removesuffix(_NODE_EVENT) for node in nodes[:num_nodes]]
    num_layers = sum(map(_is_end_of_layer, names))
    layer, is_head = 0, False
    for index, name in enumerate(names):
        us = statistics.median(node["dur"] for node in nodes[index::num_nodes])
        is_head = is_head or "lm_head" in name
        is_behind = num_layers > 0 and layer == num_layers
        group = _HEAD if is_head else _group(name, str(nodes[index]["args"].get("op_name")))
        if is_behind and group == "attention projections":
            group = _CROSS
        by_group[group] += us
        by_layer["after the layers" if is_behind else f"layer {layer + 1}"] += us
        layer += _is_end_of_layer(name)
    return OperatorProfile(by_group=dict(by_group.most_common()), by_layer=dict(by_layer))


def _is_end_of_layer(name: str) -> bool:
    return bool(_END_OF_LAYER.search(name))


def _group(name: str, operator: str) -> str:
    for group, pattern in _GROUPS:
        if pattern.search(name) or pattern.search(operator):
            return group
    return "other"
