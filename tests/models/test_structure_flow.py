"""StructureFlow: the originals' numbers, its properties, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from structure_golden import TOLERANCE, original, trellis, weights
from torch import Tensor

from golden import recipe  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from models.direct3d_s2_golden import Golden  # pyright: ignore[reportMissingImports]
from voxgen.core.errors import CheckpointError, DtypeError, RangeError, ShapeError
from voxgen.models import build
from voxgen.models.checkpoints import load_direct3d_s2
from voxgen.models.structure import (
    StructureFlow,
)
from voxgen.testing.compare import assert_same


def flow_of(constructor: dict[str, Any], **options: Any) -> StructureFlow:
    """A flow by the published constructor, less the fields that compute nothing in it or that are given otherwise."""
    fields = {name: value for name, value in constructor.items() if name not in ("use_fp16", "dtype", "rope_freq")}
    return StructureFlow(**fields, **options)


def filled_flow(seed: int = 0, **options: Any) -> StructureFlow:
    """A small flow with weights that are not zero anywhere."""
    flow = StructureFlow(4, 3, 24, 10, 5, 2, 2, qk_rms_norm=True, **options)
    load_direct3d_s2(flow, weights([(n, tuple(p.shape)) for n, p in flow.named_parameters()], seed))
    return flow


@pytest.fixture(scope="module")
def dense_dit() -> tuple[Golden, StructureFlow]:
    return original("direct3d-s2/dense-dit", "direct3d_s2_dense_dit", StructureFlow)


def test_flow_of_direct3d_s2(dense_dit: tuple[Golden, StructureFlow]) -> None:
    golden, flow = dense_dit
    steps: dict[str, Tensor] = {}
    for name in ("input_layer", "t_embedder", "blocks.0.self_attn", "blocks.0", "blocks.1"):
        flow.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: steps.__setitem__(name, out))
    with torch.no_grad():
        out = flow(golden.normal("x"), golden.arrays["in/t"], golden.normal("cond"))
    for name, value in steps.items():
        expected = golden.about["checkpoints"][name]
        assert value.mean().item() == pytest.approx(expected["mean"], abs=1e-5), name
        assert value.flatten()[:4].tolist() == pytest.approx(expected["first"], abs=1e-4), name
    assert_same(out, golden.arrays["out/y"], "velocity", golden.tolerance)


def test_flow_of_trellis() -> None:
    about, arrays = trellis("trellis_ss_flow")
    flow = flow_of(about["constructor"])
    load_direct3d_s2(flow, weights(about["tensors"], about["seed"]))
    x = torch.from_numpy(recipe.normal("x", (2, 4, 8, 8, 8), about["seed"]))
    context = torch.from_numpy(recipe.normal("cond", (2, 11, 48), about["seed"]))
    with torch.no_grad():
        assert_same(flow(x, torch.tensor([1000.0, 137.25]), context), arrays["v"], "velocity", TOLERANCE)


@pytest.mark.parametrize(
    ("file", "network", "volume", "velocity"),
    [
        ("trellis2_structure_flow", "flow", "x_t", "velocity"),
        ("trellis2_flow_variants", "dense_plain", "volume", "dense_plain"),
        ("trellis2_flow_variants", "dense_base100", "volume", "dense_base100"),
        ("trellis2_flow_variants", "dense_self_only", "volume", "dense_self_only"),
    ],
)
def test_flows_of_trellis2(file: str, network: str, volume: str, velocity: str) -> None:
    about, arrays = trellis(file)
    described = about["networks"][network]
    flow = flow_of(described["constructor"])
    flow.load_state_dict(weights(described["tensors"], described["seed"], described.get("scales")), strict=flow.pe_mode == "rope")
    inputs = {n: torch.from_numpy(recipe.normal(n, tuple(about["inputs"][n]["shape"]), about["seed"])) for n in (volume, "cond")}
    with torch.no_grad():
        assert_same(flow(inputs[volume], arrays["t"], inputs["cond"]), arrays[velocity], velocity, TOLERANCE)


def test_half_torso_is_as_far_from_float32_as_the_original() -> None:
    about, arrays = trellis("trellis2_half")
    described = about["networks"]["structure_flow"]
    flow = flow_of(described["constructor"], torso_dtype=torch.bfloat16)
    flow.load_state_dict(weights(described["tensors"], described["seed"], described.get("scales")))
    inputs = {n: torch.from_numpy(recipe.normal(n, tuple(about["inputs"][n]["shape"]), about["seed"])) for n in ("x_t", "cond")}
    with torch.no_grad():
        out = flow(inputs["x_t"], arrays["t"], inputs["cond"])
    full = arrays["structure_flow_float32"]
    distance = float((out - full).norm() / full.norm())
    # The file: "a correct half path has about the same" distance; sums are ordered differently.
    assert distance == pytest.approx(about["distance_to_float32"]["structure_flow"], rel=0.25)


def test_released_precision_of_direct3d_s2(dense_dit: tuple[Golden, StructureFlow]) -> None:
    golden, full = dense_dit
    half = build("direct3d-s2/dense-dit", **{**golden.configuration, "use_fp16": True})
    load_direct3d_s2(half, golden.weights())
    inputs = golden.normal("x"), golden.arrays["in/t"], golden.normal("cond")
    with torch.no_grad():
        expected, out = full(*inputs), half(inputs[0].half(), *inputs[1:])
    assert out.dtype == torch.float16
    # Roundings of 2^-11 through two blocks; the originals' float16 networks are 1e-3 from float32 (root mean square).
    assert float((out.float() - expected).norm() / expected.norm()) < 3e-3


@pytest.mark.parametrize("options", [{}, {"patch_size": 2}, {"pe_mode": "rope", "share_mod": True, "qk_rms_norm_cross": True}])
def test_a_sample_is_the_same_alone_and_in_a_batch(options: dict[str, Any]) -> None:
    flow = filled_flow(**options)
    x, t = torch.randn(3, 3, 4, 4, 4), torch.tensor([1000.0, 3.5, 0.0])
    context = [torch.randn(5, 10), torch.randn(0, 10), torch.randn(2, 10)]
    with torch.no_grad():
        out = flow(x, t, context)
        for i in range(3):
            assert_same(flow(x[i : i + 1], t[i : i + 1], context[i : i + 1])[0], out[i], f"sample {i}")
        assert flow(x[:0], t[:0], []).shape == (0, 5, 4, 4, 4)
    assert out.shape == (3, 5, 4, 4, 4)


def test_patches_have_channels_slowest() -> None:
    flow = StructureFlow(4, 2, 24, 10, 2, 0, 2, patch_size=2)
    x = torch.randn(1, 2, 4, 4, 4)
    seen: list[Tensor] = []
    flow.input_layer.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    flow(x, torch.zeros(1), torch.zeros(1, 1, 10))
    assert torch.equal(seen[0][0, 1].view(2, 2, 2, 2), x[0, :, :2, :2, 2:])  # token (0, 0, 1)


def test_an_untrained_flow_gives_zero() -> None:
    for initialization in ("vanilla", "scaled"):
        flow = StructureFlow(4, 3, 24, 10, 5, 2, 2, initialization=initialization, share_mod=initialization == "scaled")
        out = flow(torch.randn(2, 3, 4, 4, 4), torch.tensor([1000.0, 3.5]), torch.randn(2, 5, 10))
        assert torch.equal(out, torch.zeros(2, 5, 4, 4, 4))


def test_initial_weights_by_the_papers() -> None:
    width, depth = 384, 2
    scaled = StructureFlow(4, 8, width, 96, 8, depth, 6, share_mod=True, initialization="scaled")
    spread = {name: float(p.detach().std()) for name, p in scaled.named_parameters()}
    assert spread["blocks.0.self_attn.to_qkv.weight"] == pytest.approx((2 / (5 * width)) ** 0.5, rel=0.02)
    assert spread["blocks.1.mlp.mlp.2.weight"] == pytest.approx((5 * depth * width) ** -0.5, rel=0.02)
    assert spread["blocks.1.cross_attn.to_out.weight"] == pytest.approx((5 * depth * width) ** -0.5, rel=0.02)
    assert spread["input_layer.weight"] == pytest.approx(8**-0.5, rel=0.05)
    assert spread["blocks.0.modulation"] == pytest.approx(width**-0.5, rel=0.1)
    vanilla = StructureFlow(4, 8, width, 96, 8, depth, 6)
    bound = (6 / (width + 4 * width)) ** 0.5
    assert float(vanilla.blocks[0].mlp.mlp[0].weight.detach().abs().max()) == pytest.approx(bound, rel=1e-3)  # pyright: ignore
    assert float(vanilla.t_embedder.mlp[0].weight.detach().std()) == pytest.approx(0.02, rel=0.02)


def test_checkpointing_of_the_flow_changes_no_gradient() -> None:
    x, t, context = torch.randn(2, 3, 4, 4, 4), torch.tensor([900.0, 3.5]), torch.randn(2, 5, 10)
    gradients = []
    for checkpoint in (False, True):
        flow = filled_flow(checkpoint=checkpoint)
        flow(x, t, context).square().sum().backward()
        gradients.append({name: p.grad for name, p in flow.named_parameters()})
    for name, expected in gradients[0].items():
        assert expected is not None, name
        assert expected.abs().max() > 0, name
        assert_same(gradients[1][name], expected, name)


def test_flow_in_bad_form() -> None:
    flow = filled_flow()
    x, t, context = torch.randn(2, 3, 4, 4, 4), torch.zeros(2), torch.randn(2, 5, 10)
    for arguments, error, text in (
        ((x[..., :3], t, context), ShapeError, "one resolution"),
        ((x, t[:1], context), ShapeError, "One time a sample"),
        ((x, t, context[..., :9]), ShapeError, "context must be"),
        ((x, t, [context[0]]), ShapeError, "one tensor for each of the 2"),
        ((x.long(), t, context), DtypeError, "x must be"),
    ):
        with pytest.raises(error, match=text):
            flow(*arguments)
    with pytest.raises(RangeError, match="patch_size must divide"):
        StructureFlow(4, 3, 24, 10, 5, 2, 2, patch_size=3)
    with pytest.raises(RangeError, match="multiple of heads"):
        StructureFlow(4, 3, 24, 10, 5, 2, 5)
    with pytest.raises(RangeError, match="pe_mode"):
        StructureFlow(4, 3, 24, 10, 5, 2, 2, pe_mode="sine")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ShapeError, match="latent_shape"):
        build("direct3d-s2/dense-dit", device="meta", latent_shape=[8, 4, 4, 4])


def test_a_state_dict_may_leave_out_the_position_code(dense_dit: tuple[Golden, StructureFlow]) -> None:
    golden, flow = dense_dit
    fresh = build("direct3d-s2/dense-dit", device="meta", **golden.configuration)
    load_direct3d_s2(fresh, golden.weights(), device="cpu")
    assert torch.equal(fresh.pos_emb, flow.position_code())  # pyright: ignore
    other = torch.randn_like(flow.position_code())
    load_direct3d_s2(fresh, {**golden.weights(), "pos_emb": other})
    assert torch.equal(fresh.pos_emb, other)  # pyright: ignore
    with pytest.raises(CheckpointError, match="pos_emb"):
        load_direct3d_s2(fresh, {**golden.weights(), "pos_emb": other[:, :60]})
