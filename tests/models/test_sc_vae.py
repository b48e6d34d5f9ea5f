"""The autoencoders as a whole: published numbers, structures, batches, guides, training, bad input."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.sc_vae_cases import SMALL, decoder, encoder, latent, ovoxel, vae  # pyright: ignore[reportMissingImports]
from voxgen.core import Frame, SparseTensor, VoxelGrid
from voxgen.core.errors import DeviceError, DtypeError, EmptyResultWarning, RangeError, ShapeError
from voxgen.models import (
    MATERIAL_LATENTS,
    SCVAE,
    SHAPE_LATENTS,
    LatentNormalization,
    MaterialContent,
    SCDecoder,
    SCEncoder,
    ShapeContent,
    build,
)
from voxgen.models.checkpoints import load_trellis2, to_trellis2
from voxgen.ops.resample import Structure
from voxgen.representations import OVoxel
from voxgen.testing.compare import difference
from voxgen.testing.grids import random_grid
from voxgen.testing.shapes import torus


def published_fill(module: SCEncoder | SCDecoder) -> None:
    """Weights by the formula of the published numbers: 0.2 sin(0.7 i + 1.3 p), p the place of the sorted name; norms around 1."""
    state = {}
    for p, (name, value) in enumerate(sorted(to_trellis2(module).items())):
        values = 0.2 * torch.sin(0.7 * torch.arange(value.numel(), dtype=torch.float64) + 1.3 * p)
        state[name] = (values + (1 if "norm" in name and name.endswith("weight") else 0)).float().view(value.shape)
    load_trellis2(module, state)


def test_published_numbers_of_a_small_autoencoder() -> None:
    cells = torch.tensor([[0, 0, 0], [1, 0, 0], [1, 1, 1], [2, 1, 1], [3, 3, 2], [3, 2, 2]], dtype=torch.int32)
    coords = torch.cat((torch.zeros(6, 1, dtype=torch.int32), cells), 1)
    features = torch.sin(0.3 * torch.arange(6)[:, None] + 0.11 * torch.arange(3))
    flags = torch.tensor([[1, 0, 1], [0, 0, 1], [1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 1, 1]]).bool()
    grid, order = VoxelGrid.build(coords, resolution=4)
    fields: dict[str, Any] = {"latent_channels": 4, "use_fp16": False}
    enc = build("trellis2/shape-encoder", model_channels=[8, 16], num_blocks=[0, 1], **fields)
    dec = build("trellis2/shape-decoder", model_channels=[16, 8], num_blocks=[1, 0], **fields)
    assert isinstance(enc, SCEncoder)
    assert isinstance(dec, SCDecoder)
    published_fill(enc)
    published_fill(dec)
    with torch.no_grad():
        latent = SCVAE(enc, dec, ShapeContent()).encode(OVoxel(grid, (features * 0.5 + 0.5)[order], flags[order]))
        mean, logvar = latent.z.feats, latent.posterior.logvar
        given = dec(latent.z, structure=latent.structures).head.feats
        predicted = SCVAE(enc, dec, ShapeContent()).decode(latent)
    for value, expected in (
        (mean.sum(), -1.541820),
        (mean.abs().sum(), 13.029220),
        (logvar.sum(), -4.039170),
        (given.sum(), 5.145044),
        (given.abs().sum(), 27.157837),
        (predicted.head.feats.sum(), 10.786511),
    ):
        assert float(value) == pytest.approx(expected, abs=2e-4)  # printed to 1e-6; sums of up to 100 float32 numbers
    assert mean[0].tolist() == pytest.approx([-1.246531, -1.305416, 0.822513, 1.592769], abs=1e-5)
    assert len(predicted.grid) == 15
    mesh = predicted.ovoxel.to_mesh(compat="trellis2")
    assert (mesh.num_vertices, mesh.num_faces) == (15, 8)
    assert float(mesh.vertices.sum()) == pytest.approx(-4.355302, abs=1e-4)


def test_a_decode_predicts_unless_it_is_told() -> None:
    model, target = vae("shape"), ovoxel()
    with torch.no_grad():
        z = model.encode(target)
        predicted, bare = model.decode(z), model.decode(z.z)
        given = model.decode(z, structure=z.structures)
    assert predicted.grid.same_cells(bare.grid)
    assert not predicted.grid.same_cells(target.grid)
    assert given.grid is target.grid
    assert given.ovoxel.frame.isclose(target.frame)
    for logits, structure in zip(given.logits, z.structures, strict=True):
        assert logits.feats.shape == structure.mask().shape == (len(structure.parents), 8)
        assert logits.grid is structure.parents


def test_posterior_samples_and_normalisation() -> None:
    model = vae("shape", normalization=LatentNormalization((1.0, 2, 3, 4), (0.5, 1, 2, 3)))
    target = ovoxel()
    draws = [model.encode(target, sample=True, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(draws[0].z.feats, draws[1].z.feats)
    assert not torch.equal(draws[0].z.feats, draws[2].z.feats)
    latent = model.encode(target)
    assert torch.equal(latent.z.feats, latent.posterior.mean.feats)
    assert model.normalization is not None
    back = model.normalization.denormalize(latent.normalized)
    assert difference(back.feats, latent.z.feats) < 1e-6
    assert torch.allclose(latent.normalized.feats[:, 1], latent.z.feats[:, 1] - 2)


@pytest.mark.parametrize("constants", [SHAPE_LATENTS, MATERIAL_LATENTS])
def test_released_latents(constants: LatentNormalization) -> None:
    z = latent(random_grid((20,), 8), 32)
    assert difference(constants.denormalize(constants.normalize(z)).feats, z.feats) < 1e-6
    ones = constants.denormalize(z.with_feats(torch.ones_like(z.feats)))
    assert ones.feats[0].tolist() == pytest.approx([m + s for m, s in zip(constants.mean, constants.std, strict=True)])


def test_released_latents_are_those_of_the_files() -> None:
    """Sums over channels, and sums weighted by the channel's number, of the published lists."""
    sums = [(sum(v), sum(i * x for i, x in enumerate(v))) for c in (SHAPE_LATENTS, MATERIAL_LATENTS) for v in (c.mean, c.std)]
    expected = [(-1.419879, -37.513715), (170.747668, 2676.408752), (11.237062, 102.527248), (86.627503, 1344.666820)]
    for ours, published in zip(sums, expected, strict=True):
        assert ours == pytest.approx(published, abs=2e-6)  # six digits are printed


@settings(max_examples=5, deadline=None, derandomize=True)
@given(counts=st.tuples(*[st.sampled_from([0, 1, 5, 40, 90])] * 3))
def test_a_sample_is_the_same_alone_and_in_a_batch(counts: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    shape, material, target = vae("shape"), vae("material"), ovoxel(counts)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", EmptyResultWarning)  # a sample of a few cells may lose them all
        for index in range(3):
            alone = target.sample(index)
            for model in (shape, material):
                z, whole = model.encode(alone), model.encode(target)
                # torch multiplies matrices of few rows by another routine, which sums in another order
                assert difference(whole.z.unbind()[index].feats, z.z.feats) < 1e-5
            mesh = shape.decode(shape.encode(alone)).ovoxel
            batch = shape.decode(shape.encode(target)).ovoxel.sample(index)
            assert torch.equal(mesh.coords, batch.coords)
            assert difference(batch.dual_vertices, mesh.dual_vertices) < 1e-5


def test_order_of_voxels_does_not_matter() -> None:
    model, target = vae("shape"), ovoxel((80,))
    shuffle = torch.randperm(len(target))
    grid, order = VoxelGrid.build(target.coords[shuffle], resolution=16)
    again = OVoxel(grid, target.dual_vertices[shuffle][order], target.intersected[shuffle][order])
    with torch.no_grad():
        assert torch.equal(model.encode(target).z.feats, model.encode(again).z.feats)


def test_materials_follow_a_shape() -> None:
    shape, material, target = vae("shape"), vae("material"), ovoxel()
    with torch.no_grad():
        body = shape.decode(shape.encode(target))
        z = material.encode(target)
        out = material.decode(z, guide=body.logits)
        dressed = out.onto(body.ovoxel)
        plain = material.decode(z, guide=[logits.feats > 0 for logits in body.logits])
        given = material.decode(z, structure=z.structures)
        resized = material.decode(z, guide=body.logits, resolution=40)
    assert list(dressed.materials) == ["base_color", "metallic", "roughness", "alpha"]
    assert torch.equal(out.materials["alpha"], out.head.feats[:, 5:] * 0.5 + 0.5)
    assert torch.equal(plain.head.feats, out.head.feats)
    assert given.onto(target).grid is target.grid
    with pytest.raises(RangeError, match="cells of the materials"):
        resized.onto(body.ovoxel)
    with pytest.raises(RangeError, match="does not predict"):
        material.decode(z)


def test_resolution_only_moves_the_result() -> None:
    model = vae("shape")
    z = latent(random_grid((6,), 4))
    with torch.no_grad():
        small, large = model.decode(z), model.decode(z, resolution=64)
    assert torch.equal(small.head.feats, large.head.feats)
    assert small.ovoxel.resolution == (16,) * 3
    assert large.ovoxel.frame == Frame.unit(64)
    a, b = small.ovoxel.to_mesh(compat="trellis2"), large.ovoxel.to_mesh(compat="trellis2")
    assert torch.allclose((a.vertices + 0.5) / 4, b.vertices + 0.5, atol=1e-6)
    with pytest.raises(RangeError, match="resolution too low"):
        model.decode(z, resolution=2)


def test_empty_input() -> None:
    for counts in ((), (0,), (0, 0)):
        model, target = vae("shape"), ovoxel(counts)
        out = model.decode(model.encode(target)).ovoxel
        assert len(out) == 0
        assert out.batch_size == len(counts)
        assert out.to_mesh().num_faces == 0


def test_one_voxel() -> None:
    model, target = vae("shape"), ovoxel((1,))
    z = model.encode(target)
    assert len(z.z) == 1
    assert model.decode(z, structure=z.structures).head.feats.isfinite().all()


def silence(model: SCVAE[Any], step: int) -> None:
    """A decoder of which a step keeps no child."""
    block: Any = model.decoder.blocks[step][-1]  # pyright: ignore[reportIndexIssue]
    block.predict.bias.data.fill_(-1e4)


@pytest.mark.parametrize("step", [0, 1])
def test_a_level_that_keeps_nothing(step: int) -> None:
    model = vae("shape")
    silence(model, step)
    z = latent(random_grid((5, 4), 4))
    with torch.no_grad(), pytest.warns(EmptyResultWarning) as caught:
        out = model.decode(z)
    assert len(caught) == 1
    assert len(out.grid) == 0
    assert out.grid.batch_size == 2
    assert out.head.feats.shape == (0, 7)
    assert out.ovoxel.to_mesh().num_faces == 0
    with pytest.warns(EmptyResultWarning):
        assert len(model.decoder.upsample(z, step + 1)) == 0


def test_a_sample_that_vanishes_leaves_the_others_alone() -> None:
    model = vae("shape", num_blocks=(0, 0, 0))
    grid = random_grid((6, 5), 4)
    z = latent(grid)
    with torch.no_grad():
        untouched = model.decode(z).ovoxel.sample(1)
        model.decoder.from_latent.weight.zero_()
        model.decoder.from_latent.weight[:4] = torch.eye(4)
        model.decoder.from_latent.bias.zero_()
        first: Any = model.decoder.blocks[0][-1]  # pyright: ignore[reportIndexIssue]
        first.predict.weight.zero_()
        first.predict.weight[:, 0] = 1.0  # the logits of step 0 are the latent's first channel
        first.predict.bias.zero_()
        lively = z.with_feats(torch.cat((torch.where(grid.batch[:, None] == 0, -1.0, 1.0), z.feats[:, 1:]), 1))
        with pytest.warns(EmptyResultWarning, match="step 0 keeps no child of sample 0"):
            out = model.decode(lively).ovoxel
        alone = model.decode(lively.unbind()[1]).ovoxel
    assert len(out.sample(0)) == 0
    assert torch.equal(out.sample(1).coords, alone.coords)
    assert torch.equal(out.sample(1).dual_vertices, alone.dual_vertices)
    assert len(untouched) != len(alone)


def test_training_reaches_every_parameter() -> None:
    """Through the training mesh, the head and the logits; only the last logits' layer hangs on logits alone."""
    target = OVoxel.from_mesh(torus(), resolution=16, materials=False)
    model = vae("shape")
    out, z = model(target, generator=torch.Generator().manual_seed(0))
    mesh = out.to_ovoxel(target.intersected).to_mesh(training=True)
    assert mesh.num_faces > 100
    loss = mesh.vertices.square().sum() + sum((s.feats * m.mask()).mean() for s, m in zip(out.logits, z.structures, strict=True))
    (loss + out.prediction.crossing_logits.mean()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert bool(parameter.grad.any()), name
    split = model.decoder.output_layer.weight.grad
    assert split is not None
    assert bool(split[6].any())  # the split weight learns from the mesh


def test_predicted_decoding_has_gradients_but_not_through_decisions() -> None:
    model = vae("shape")
    z = latent(random_grid((6,), 4))
    feats = z.feats.requires_grad_()
    model.decode(z.with_feats(feats)).head.feats.square().sum().backward()
    assert feats.grad is not None
    assert bool(feats.grad.any())


@pytest.mark.parametrize("kind", ["SparseResBlockS2C3d", "SparseResBlockDownsample3d"])
def test_checkpointing_changes_no_gradient(kind: str) -> None:
    up = "SparseResBlockC2S3d" if "S2C" in kind else "SparseResBlockUpsample3d"
    grads: list[list[Tensor]] = []
    for flag in (False, True):
        args = {"use_checkpoint": flag}
        enc, dec = encoder(down_block_type=kind, block_args=args), decoder(up_block_type=up, block_args=args)
        model = SCVAE(enc, dec, ShapeContent())
        torch.manual_seed(1)
        out, _ = model(ovoxel((40,)), sample=False)
        (out.head.feats.square().sum() + out.logits[0].feats.square().sum()).backward()
        grads.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(grads[0]) == len(grads[1]) > 20
    for a, b in zip(*grads, strict=True):
        assert torch.equal(a, b)


def test_plain_blocks_and_pooled_levels() -> None:
    enc = encoder(block_type="SparseResBlock3d", down_block_type="SparseResBlockDownsample3d")
    dec = decoder(block_type=("SparseResBlock3d", "SparseConvNeXtBlock3d"), up_block_type="SparseResBlockUpsample3d")
    model, target = SCVAE(enc, dec, ShapeContent()), ovoxel()
    z = model.encode(target)
    assert model.decode(z, structure=z.structures).grid is target.grid
    for module in (enc, dec):
        names = to_trellis2(module)
        assert any("skip_connection" in name for name in names)
        load_trellis2(module, names)


def test_precisions() -> None:
    target = ovoxel((60,))
    results = {}
    for name in ("float32", "float16", "bfloat16", "float64"):
        model = vae("shape", torso_dtype=name, use_fp16=None)
        with torch.no_grad():
            z = model.encode(target)
            results[name] = model.decode(z.z, structure=z.structures).head.feats
            assert results[name].dtype == torch.float32
    for name, bound in (("float16", 1e-2), ("bfloat16", 8e-2), ("float64", 1e-4)):  # a few roundings of 2⁻¹¹, 2⁻⁸ and 2⁻²⁴ in a row
        assert 0 < difference(results[name], results["float32"]) < bound


@pytest.mark.parametrize("change", [torch.nn.Module.half, torch.nn.Module.double, torch.nn.Module.bfloat16])
def test_whole_module_in_another_dtype(change: Callable[[Any], Any]) -> None:
    model, z = vae("shape"), latent(random_grid((6,), 4))
    change(model)
    dtype = model.decoder.from_latent.weight.dtype
    with torch.no_grad():
        out = model.decode(z.to(dtype))
    assert out.head.dtype == dtype
    assert out.ovoxel.to_mesh().vertices.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_initialisation() -> None:
    model: Any = build("trellis2/shape-vae", **SMALL, normalization=None)
    for name, parameter in model.named_parameters():
        if ".conv2." in name:
            assert not bool(parameter.any()), name  # resampling blocks begin as their shortcuts
        elif "mlp.2" in name or "predict" in name or "output_layer" in name:
            assert bool(parameter.any()) == (parameter.ndim == 2), name  # Xavier, with zero biases
    weight = model.decoder.from_latent.weight.detach()
    assert float(weight.abs().max()) <= (6 / sum(weight.shape)) ** 0.5


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (RangeError, "both say", lambda m, z, s: m.decode(z, structure=s, guide=[x.mask() for x in s])),
        (ShapeError, "structure must have 2 entries", lambda m, z, s: m.decode(z, structure=s[:1])),
        (RangeError, "structure\\[0\\].parents", lambda m, z, s: m.decode(z, structure=s[::-1])),
        (DtypeError, "must be a Structure", lambda m, z, s: m.decode(z, structure=[x.mask() for x in s])),
        (ShapeError, "guide must have 2 entries", lambda m, z, s: m.decode(z, guide=[s[0].mask()])),
        (ShapeError, "guide\\[0\\] must be", lambda m, z, s: m.decode(z, guide=[s[0].mask()[1:], s[1].mask()])),
        (DtypeError, "guide\\[0\\] must be", lambda m, z, s: m.decode(z, guide=[s[0].mask().int(), s[1].mask()])),
        (RangeError, "guide\\[0\\] must not be NaN", lambda m, z, s: m.decode(z, guide=[s[0].mask() * torch.nan, s[1].mask()])),
        (RangeError, "guide\\[1\\] must cover", lambda m, z, s: m.decode(z, guide=[s[0].mask(), SparseTensor(s[0].parents, s[0].mask())])),
        (RangeError, "latent must be finite", lambda m, z, s: m.decode(z.with_feats(z.feats * torch.nan))),
        (ShapeError, "must have 4 channels", lambda m, z, s: m.decode(z.with_feats(z.feats[:, :3]))),
        (DtypeError, "dtype", lambda m, z, s: m.decode(z.to(torch.float64))),
        (DeviceError, "one device", lambda m, z, s: m.decoder(z.to("meta"))),
        (DtypeError, "latent must be", lambda m, z, s: m.decode(z.feats)),
        (DtypeError, "must be an OVoxel", lambda m, z, s: m.encode(z)),
        (RangeError, "no effect", lambda m, z, s: m.encode(ovoxel(), generator=torch.Generator())),
        (
            RangeError,
            "dual_vertices must be finite",
            lambda m, z, s: m.encode(ovoxel().replace(dual_vertices=torch.full((150, 3), torch.inf))),
        ),
        (RangeError, "steps must be from 0 to 2", lambda m, z, s: m.decoder.upsample(z, 3)),
        (RangeError, "has no normalisation", lambda m, z, s: m.encode(ovoxel()).normalized),
        (ShapeError, "normalisation must have", lambda m, z, s: SCVAE(m.encoder, m.decoder, ShapeContent(), SHAPE_LATENTS)),
        (ShapeError, "out_channels must be", lambda m, z, s: SCVAE(m.encoder, m.decoder, MaterialContent())),
        (ShapeError, "number of levels", lambda m, z, s: SCVAE(m.encoder, decoder(), ShapeContent())),
        (ShapeError, "must have 32 channels", lambda m, z, s: SHAPE_LATENTS.normalize(z)),
    ],
)
def test_bad_input(error: type[Exception], words: str, call: Callable[..., Any]) -> None:
    model = vae("shape")
    z = model.encode(ovoxel())
    with pytest.raises(error, match=words):
        call(model, z.z.with_feats(z.z.feats.detach()), z.structures)


def test_bad_materials() -> None:
    model, target = vae("material"), ovoxel()
    with pytest.raises(RangeError, match="alpha"):
        model.encode(target.replace(materials={k: v for k, v in target.materials.items() if k != "alpha"}))
    with pytest.raises(RangeError, match="stored as 'srgb'"):
        model.encode(target.replace(color_space="linear"))


def test_nan_inside_the_network_is_an_error_and_not_a_pruned_voxel() -> None:
    model, z = vae("shape"), latent(random_grid((6,), 4))
    model.decoder.from_latent.bias.data[0] = torch.nan
    with pytest.raises(RangeError, match="logits of step 0 must not be NaN"):
        model.decode(z)


def test_compile() -> None:
    """Compiled modules give the eager numbers; where shapes depend on values the compiler leaves the graph, as anywhere."""
    enc, x = encoder(num_blocks=(0, 1)), latent(random_grid((40,), 8), 6)
    structure = Structure.of_children(x.grid)
    with torch.no_grad():
        expected = enc(x).posterior.mean.feats
        actual = torch.compile(enc, backend="eager")(x).posterior.mean.feats
    assert torch.equal(actual, expected)
    assert structure.parents is enc(x).posterior.mean.grid
