"""What is read from the compiler's log: kernels, copies, fused attentions, memory."""

from __future__ import annotations

from builders.compiler_log import CompilerLog
from builders.workspace import workspace_remedy


def tensor(name: str, kind: str) -> str:
    return f"{{ Name: {name}, Dimensions: [1,-1], Strides: [-1,1], Datatype: {kind}, Format: x }}"


def layer(name: str, kind: str, inputs: list[str], constants: list[str]) -> str:
    read, held = ", ".join(inputs), ", ".join(constants)
    outputs = tensor("out", "Half")
    return (
        f"Name: {name}, LayerType: {kind}, Inputs: [ {read}], Constants: [ {held}], "
        f"Outputs: [ {outputs}], TacticName: t, StreamId: 0, Metadata: [ONNX Layer: /MatMul]"
    )


def test_layers_are_counted_by_profile() -> None:
    key = tensor("past_key_values.0.encoder.key [profile 1]", "Half")
    hidden, weight = tensor("hidden", "Half"), tensor("weight", "Int8")
    table = "\n".join(
        [
            "Layers:",
            layer("__mye1_0_myl0_0", "shape_call", [], []),
            layer("__mye2_myl0_1", "gemm", [hidden], [tensor("w", "Half")]),
            layer("_gemm_mha_v2_myl0_2", "kgen", [hidden], []),
            layer("__mye2_myl1_1", "gemm", [tensor("x", "Int8")], [weight]),
            layer("__myl_FcAddMul_myl1_2", "runtime_fusion", [hidden], [tensor("w", "Half")]),
            layer("__myl_TranReshMove_myl1_3", "kgen", [key], []),
            layer("__myl_MoveReplConc_myl1_4", "kgen", [hidden], []),
            layer("__myl_ReshAddCast_myl1_5", "kgen", [key], []),
            layer("entry^bb^signal^1_myl1_6", "signal", [], []),
        ]
    )
    log = CompilerLog()
    for text in ("Total Activation Memory: 100 bytes", "Total Activation Memory: 300 bytes"):
        log.add("info", text)
    log.add("info", "Total Weights Memory: 77 bytes")
    log.add("verbose", table)
    first, second = log.profiles()
    assert log.weight_bytes == 77
    assert (first.activation_bytes, second.activation_bytes) == (100, 300)
    assert (first.num_kernels, second.num_kernels) == (2, 5)
    assert (first.num_attentions, second.num_attentions) == (1, 0)
    assert first.products == {"Half": 1}
    assert second.products == {"Int8": 1, "Half": 1}
    assert (second.num_copies, second.num_kv_copies) == (2, 1)
    assert second.kinds == {"gemm": 1, "runtime_fusion": 1, "kgen": 3}


def test_the_remedy_names_what_is_missing_and_the_flag() -> None:
    message = "Error Code 2: OutOfMemory (Requested size was 327754624 bytes.)"
    assert workspace_remedy(["something else", message]) == (
        "a layer needs 313 MiB of workspace: give --workspace-mib 313 or more, or leave it out "
        "for no limit"
    )
    vague = "no tactics to implement the operation within workspace limit."
    assert workspace_remedy([vague]) == (
        "the workspace is too small: raise --workspace-mib, or leave it out for no limit"
    )
    assert workspace_remedy(["Error Code 4: something else"]) is None
