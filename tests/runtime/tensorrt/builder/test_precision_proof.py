"""Precision proof from both dialects of the inspector's JSON.

The layers below are shortened from what TensorRT 8.5 to 10.8 printed in public reports, the second
dialect follows the keys that the migration page of TensorRT 11 names.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from jetsight.errors import EngineError
from jetsight.tensorrt.builder import precision_proof

HALF_GEMM = (
    "sm80_xmma_gemm_f16f16_f16f16_f16_nn_n_tilesize32x32x64_stage6_warpsize2x2x1_tensor16x8x16"
)
INT8_GEMM = (
    "sm80_xmma_gemm_i8f32_i8i32_f32_tn_n_tilesize32x32x64_stage6_warpsize2x2x1_tensor16x8x32"
)
MHA = "_gemm_mha_v2_0x957a2fe283f77dcf35c142c1390a3e6a"


def tensor(kind: str, *dims: int, new: bool = False) -> dict[str, Any]:
    shown = {"Half": "FP16", "Int8": "Int8", "Float": "FP32"}.get(kind, kind)
    if not new:
        return {
            "Name": "t",
            "Location": "Device",
            "Dimensions": list(dims),
            "Format/Datatype": kind,
        }
    return {
        "Name": "t",
        "Location": "Device",
        "Dimensions": list(dims),
        "Datatype": kind,
        "Format": f"Row major linear {shown} format (kLINEAR)",
    }


def layer(name: str, kind: str, tactic: str, ins: list[Any], outs: list[Any], **more: Any) -> Any:
    return {
        "Name": name,
        "LayerType": kind,
        "Inputs": ins,
        "Outputs": outs,
        "TacticName": tactic,
        "StreamId": 0,
        "Metadata": "[ONNX Layer: /mha/MatMul]",
        **more,
    }


def block(new: bool) -> list[Any]:
    """One transformer block of 40 tokens, size 256, 4 heads; its first product is in INT8."""

    def t(kind: str, *dims: int) -> dict[str, Any]:
        return tensor(kind, *dims, new=new)

    scalar = t("Float", 1)
    return [
        layer(
            "Reformatting CopyNode for Input Tensor 0 to x",
            "Reformat",
            "",
            [t("Float", 40, 256)],
            [t("Half", 40, 256)],
        ),
        layer("x_QuantizeLinear", "Quantize", "", [t("Half", 1, 40, 256)], [t("Int8", 1, 40, 256)]),
        layer(
            "/mha/key/MatMul+/mha/query/MatMul+/mha/value/MatMul_myl0_16",
            "gemm",
            INT8_GEMM,
            [t("Int8", 1, 40, 256), scalar],
            [t("Half", 3, 40, 256)],
        ),
        layer(
            "_gemm_mha_v2_myl0_17",
            "kgen",
            MHA,
            [t("Half", 4, 40, 64), t("Half", 4, 64, 40), t("Half", 4, 40, 64)],
            [t("Half", 4, 40, 64)],
        ),
        layer(
            "__myl_AddCasMeaSubMul_myl0_18",
            "kgen",
            "__myl_AddCasMea_0x1",
            [t("Half", 40, 256)],
            [t("Half", 40, 256)],
        ),
        layer(
            "/mlp/MatMul_myl0_19",
            "gemm",
            HALF_GEMM,
            [t("Half", 1, 40, 256)],
            [t("Half", 1, 40, 1024)],
        ),
    ]


def dialect(layers: list[Any], new: bool) -> str:
    if new:
        ports = [{"Name": "x", "IOMode": "Input", "DataType": "Float", "Dimensions": [40, 256]}]
        return json.dumps({"Layers": layers, "I/O Tensors": ports})
    return json.dumps({"Layers": layers, "Bindings": ["x", "y"]})


@pytest.mark.parametrize("new", [False, True], ids=["10.x", "11.x"])
def test_shares_are_worked_out_by_hand(new) -> None:
    proof = precision_proof.prove(dialect(block(new), new), "int8")
    qkv, attention, mlp = 2 * 3 * 40 * 256 * 256, 2 * 40 * 2 * (4 * 40 * 64), 2 * 40 * 1024 * 256
    assert proof.unit == "flop"
    assert proof.shares == pytest.approx(
        {"int8": qkv / (qkv + attention + mlp), "fp16": (attention + mlp) / (qkv + attention + mlp)}
    )
    assert (proof.gemm_layers, proof.fused_attention) == (3, 1)
    assert (proof.reformat_layers, proof.quantize_layers) == (1, 1)
    precision_proof.refuse_fallback(proof, "x")


@pytest.mark.parametrize("new", [False, True], ids=["10.x", "11.x"])
def test_int8_that_silently_runs_in_half_is_refused(new) -> None:
    layers = block(new)
    layers[2]["TacticName"] = HALF_GEMM  # the negative control: same engine, one kernel changed
    proof = precision_proof.prove(dialect(layers, new), "int8")
    assert proof.shares == {"fp16": 1.0}
    with pytest.raises(EngineError, match=r"silent precision fallback, int8 was requested") as why:
        precision_proof.refuse_fallback(proof, "trt-op20-int8 encode")
    assert "fp16 100% of GEMM operations" in str(why.value)
    assert "build the -fp16 family" in str(why.value)


@pytest.mark.parametrize("asked", ["fp32", "int4", "nvfp4"])
def test_what_asks_for_no_operand_type_is_not_judged(asked) -> None:
    """Weight-only products compute in the float format around them."""
    layers = block(False)
    layers[2]["TacticName"] = HALF_GEMM
    precision_proof.refuse_fallback(precision_proof.prove(dialect(layers, False), asked), "x")


def test_without_shapes_layers_are_counted_and_it_says_so() -> None:
    layers = block(False)
    del layers[5]["Inputs"][0]["Dimensions"]
    proof = precision_proof.prove(dialect(layers, False), "int8")
    assert proof.unit == "layers"
    assert proof.shares == pytest.approx({"int8": 1 / 3, "fp16": 2 / 3})
    assert precision_proof.shares_text(proof) == "fp16 67%, int8 33% of 3 GEMM layers"


def test_a_convolution_counts_its_window_and_groups() -> None:
    conv = layer(
        "res4_branch2a + bn",
        "CaskConvolution",
        "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8_x",
        [tensor("Thirty-two wide channel vectorized row major Int8 format.", 16, 512, 28, 28)],
        [tensor("Thirty-two wide channel vectorized row major Int8 format.", 16, 256, 28, 28)],
        Kernel=[3, 3],
        Groups=2,
    )
    (found,) = precision_proof.parse(json.dumps({"Layers": [conv]}))
    assert found.flop == 2 * 16 * 256 * 28 * 28 * (512 // 2) * 9
    assert found.precision == "int8"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Row major linear FP16 format", "fp16"),
        ("Half", "fp16"),
        ("BFloat16", "bf16"),
        ("Row major linear BF16 format", "bf16"),
        ("Float", "fp32"),
        ("Int8", "int8"),
        ("Row major linear FP8 format", "fp8"),
        ("FP4E2M1", "fp4"),
        ("Int4", "int4"),
        ("Bool", "bool"),
        ("N/A due to dynamic shapes", "unknown"),
    ],
)
def test_every_spelling_of_a_type(text, kind) -> None:
    for key in ("Format/Datatype", "Datatype", "DataType", "Format"):
        gemm = layer("g", "gemm", "", [{"Dimensions": [4, 4], key: text}], [tensor("Half", 4, 4)])
        assert precision_proof.parse(json.dumps({"Layers": [gemm]}))[0].precision == kind


@pytest.mark.parametrize(
    ("tactic", "kind"),
    [
        (HALF_GEMM, "fp16"),
        (INT8_GEMM, "int8"),
        ("sm89_xmma_gemm_e4m3e4m3_e4m3f32_f32_tn", "fp8"),
        ("sm80_xmma_gemm_bf16bf16_bf16f32_f32_nn", "bf16"),
        ("ampere_h16816gemm_256x128", "fp16"),
        ("sm80_xmma_gemm_f32f32_tf32f32_f32_nn", "tf32"),
        ("sm80_xmma_gemm_f32f32_f32_n", "fp32"),
    ],
)
def test_the_kernel_says_it_best(tactic, kind) -> None:
    gemm = layer("g", "gemm", tactic, [tensor("Bool", 4, 4)], [tensor("Half", 4, 4)])
    assert precision_proof.parse(json.dumps({"Layers": [gemm]}))[0].precision == kind


def test_names_of_the_graph_prove_nothing() -> None:
    """A node of a model may be called anything; only kernels and Myelin's own names count."""
    half = [tensor("Half", 40, 256)]
    layers = [
        layer("/encoder/mha/Gemm_flash_attention", "kgen", "__myl_AddCas_0x1", half, half),
        layer("PWN(/mlp/Gemm_bias)", "PointWiseV2", "", half, half),
    ]
    proof = precision_proof.prove(dialect(layers, False), "fp16")
    assert (proof.gemm_layers, proof.fused_attention) == (0, 0)
    assert precision_proof.unproven(proof) is not None
    precision_proof.refuse_fallback(proof, "x")  # nothing was seen: unproven, not refuted


def test_fused_products_of_myelin_count() -> None:
    half = [tensor("Half", 40, 256)]
    layers = [
        layer("__myl_CasMulFcAdd_myl0_3", "kgen", "__myl_CasMulFcAdd_0x1", half, half),
        layer("/fc1/MatMul_myl0_4", "kgen", "__mye8037_gemm_mha_v2", half, half),
    ]
    proof = precision_proof.prove(dialect(layers, False), "fp16")
    assert (proof.gemm_layers, proof.fused_attention) == (2, 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no JSON"),
        ("[]", "no JSON"),
        ("{}", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ('{"Layers": ["a", "b"]}', "lists layer names only"),
        ('{"Layers": 3}', "layer names"),
    ],
)
def test_what_is_no_layer_list_is_one_line(text, says) -> None:
    with pytest.raises(EngineError, match=says):
        precision_proof.prove(text, "fp16")


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"Inputs": "x"},
        {"Inputs": [3], "Outputs": [{"Dimensions": [None]}]},
        {"LayerType": "gemm", "Inputs": [{"Dimensions": [0, -1]}], "Outputs": [{}]},
        {
            "LayerType": "gemm",
            "Kernel": [3],
            "Groups": 0,
            "Inputs": [{"Dimensions": [1, 2]}],
            "Outputs": [{"Dimensions": [1, 2]}],
        },
    ],
)
def test_odd_layers_never_raise_anything_else(odd) -> None:
    precision_proof.prove(json.dumps({"Layers": [odd]}), "fp16")
