"""What Direct3D-S2's own code gives for the same weights and inputs, on every engine of a CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import voxgen
from models.direct3d_s2_golden import Golden  # pyright: ignore[reportMissingImports]
from voxgen.core import SparseTensor
from voxgen.models import LatentNormalization, SparseSDFVAE, build
from voxgen.models.checkpoints import load_direct3d_s2
from voxgen.models.direct3d_s2 import decoded_repeats
from voxgen.models.sparse_sdf_vae import SDFDownBlock, SDFUpBlock
from voxgen.ops.resample import Structure, pool
from voxgen.representations import SparseSDF
from voxgen.testing.compare import difference

TOLERANCE = 1e-4  # of each array's largest value, as the goldens say


@pytest.fixture(scope="module")
def golden() -> Golden:
    return Golden.read("direct3d_s2_sdf_vae")


@pytest.fixture(scope="module")
def vae(golden: Golden) -> SparseSDFVAE:
    """The golden's network; the chunked golden has the same weights."""
    module = build("direct3d-s2/vae", device="meta", **golden.configuration)
    load_direct3d_s2(module, golden.weights(), device="cpu")
    assert isinstance(module, SparseSDFVAE)
    return module


@pytest.fixture(scope="module")
def sdf(golden: Golden) -> SparseSDF:
    x = SparseTensor.build(golden.arrays["in/coords"].int(), golden.arrays["in/sdf"].float(), resolution=128)
    return SparseSDF.from_normalized(x)


@pytest.fixture(params=["numba", "torch", "reference"])
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    with voxgen.use_backend(request.param), torch.no_grad():
        yield request.param


def close(actual: Tensor, expected: Tensor) -> None:
    assert actual.shape == expected.shape
    assert difference(actual, expected) < TOLERANCE


def octree_order(coords: Tensor, steps: int = 3) -> Tensor:
    """All descendants in the original's order: contiguous per parent, x slowest, z fastest, step after step."""
    children = F.pad(torch.cartesian_prod(*[torch.arange(2, dtype=torch.int32)] * 3), (1, 0))
    for _ in range(steps):
        coords = (coords[:, None] * torch.tensor([1, 2, 2, 2], dtype=torch.int32) + children).flatten(0, 1)
    return coords


def test_encode_and_decode(golden: Golden, vae: SparseSDFVAE, sdf: SparseSDF, engine: str) -> None:
    latent = vae.encode(sdf)
    assert torch.equal(latent.z.coords, golden.arrays["out/latent_coords"])
    close(latent.z.feats, golden.arrays["out/mean"])
    close(latent.posterior.logvar, golden.arrays["out/logvar"])

    decoded = vae.decode(latent, features=True)
    order = octree_order(latent.z.coords)
    assert torch.equal(order[:64], golden.arrays["out/decoded_coords_first"])
    assert torch.equal(order[::512], golden.arrays["out/decoded_coords_all_first_row_of_each_token"])
    rows = decoded.values.grid.rows_of(order)
    assert torch.equal(rows.sort().values, torch.arange(512 * len(latent.z)))
    close(decoded.values.feats[rows], golden.arrays["out/decoded"])
    assert decoded.features is not None
    close(decoded.features.feats[rows[:32]], golden.arrays["out/features_first"])


def test_position_factor(golden: Golden, vae: SparseSDFVAE, sdf: SparseSDF) -> None:
    with torch.no_grad():
        latent = vae.encode(sdf, factor=0.5)
        close(latent.z.feats, golden.arrays["out/mean_factor_half"])
        z = latent.z.with_feats(golden.arrays["out/mean"])
        about = golden.about["checkpoints"]["decoded with factor 0.5"]
        decoded = vae.decode(z, factor=0.5).values
        first = decoded.feats[decoded.grid.rows_of(octree_order(z.coords)[:4])]
        close(first[:, 0], torch.tensor(about["first"]))
        assert decoded.feats.mean().item() == pytest.approx(about["mean"], abs=1e-5)
        assert decoded.feats.std(correction=0).item() == pytest.approx(about["std"], abs=1e-5)


def test_pooling_counts_one_child_too_many(golden: Golden, vae: SparseSDFVAE, sdf: SparseSDF, engine: str) -> None:
    h = vae.encoder.input_layer1(sdf.normalized().feats)
    close(pool(h, Structure.of_children(sdf.grid), "mean_plus_one")[:16], golden.arrays["out/pooled_first"])


def test_chunked_decode(vae: SparseSDFVAE) -> None:
    golden = Golden.read("direct3d_s2_sdf_vae_chunked")
    z = SparseTensor.build(golden.arrays["in/latent_coords"], golden.normal("z"), resolution=16)
    with torch.no_grad():
        whole = vae.decode(z).values
        tiled = vae.decode(z, tile=8).values  # the golden's chunks
    assert tiled.grid.same_cells(whole.grid)
    close(tiled.feats, whole.feats)
    close(whole.feats[whole.grid.rows_of(octree_order(z.coords))][::97], golden.arrays["out/whole_every_97"])
    rows = tiled.grid.rows_of(golden.arrays["out/chunked_coords_every_97"].int())
    close(tiled.feats[rows], golden.arrays["out/chunked_every_97"])

    # The original pools every row that it emits; ours with their counts.
    repeats = decoded_repeats(tiled.grid.cells, chunk=64)[:, None].float()
    structure = Structure.of_children(tiled.grid)
    pooled = pool(tiled.feats * repeats, structure, "sum") / (pool(repeats, structure, "sum") + 1)
    parents = structure.parents.rows_of(golden.arrays["out/pooled_coords_every_61"].int())
    close(pooled[parents], golden.arrays["out/pooled_every_61"])


def test_chunks_of_the_configuration(golden: Golden) -> None:
    chunked = build("direct3d-s2/vae", device="meta", **{**golden.configuration, "chunk_size": 2})
    assert isinstance(chunked, SparseSDFVAE)
    assert chunked.tile == 8


def test_latents_of_the_flow() -> None:
    """latents / scale + shift is what the decoder gets (the sparse pipeline's golden has these constants)."""
    vae = build("direct3d-s2/vae", device="meta", latents_scale=0.5, latents_shift=0.125)
    assert isinstance(vae, SparseSDFVAE)
    assert isinstance(vae.normalization, LatentNormalization)
    x = SparseTensor.build(torch.zeros(1, 4, dtype=torch.int32), torch.randn(1, 16), resolution=1)
    assert torch.equal(vae.normalization.denormalize(x).feats, x.feats / 0.5 + 0.125)


def det(shape: tuple[int, ...], phase: float, amplitude: float = 0.1, frequency: float = 0.37) -> Tensor:
    i = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (amplitude * torch.sin(frequency * i + phase)).view(shape)


def x_fastest(kernel: Tensor) -> Tensor:
    """Offsets of the published kernels run x fastest, ours z fastest."""
    return kernel.view(3, 3, 3, *kernel.shape[1:]).transpose(0, 2).flatten(0, 2)


def test_up_block_of_the_original() -> None:
    block = SDFUpBlock(4, 2).double()
    for i, p in enumerate((block.conv1.weight, block.conv1.bias, block.conv2.weight, block.conv2.bias)):
        assert p is not None
        value = det(tuple(p.shape), 1 + 0.1 * i, 0.3)
        p.data.copy_(x_fastest(value) if p.ndim == 3 else value)
    x = SparseTensor.build(torch.tensor([[0, 1, 2, 3], [0, 1, 2, 4], [0, 2, 2, 3]]).int(), det((3, 4), 0.7, 1.0), resolution=8)
    y = block(x, Structure.of_mask(x.grid))
    rows = y.feats[y.grid.rows_of(octree_order(x.coords, 1))]
    assert len(rows) == 24
    assert rows.sum().item() == pytest.approx(43.21714651, abs=1e-7)
    assert rows.abs().sum().item() == pytest.approx(47.67804451, abs=1e-7)
    assert rows[[0, 7, 23]].flatten().tolist() == pytest.approx(
        [0.22425018, 0.24514065, 0.04998098, -0.21692400, 1.15311123, 0.92553561], abs=1e-7
    )


def test_down_block_of_the_original() -> None:
    block = SDFDownBlock(32, 64, num_groups=32, pooling="mean_plus_one")
    layers = (block.norm1, block.conv1, block.norm2, block.conv2, block.skip_connection)
    params = [getattr(layer, name) for layer in layers for name in ("weight", "bias")]
    for i, p in enumerate(params):
        value = det(tuple(p.shape), 1 + 0.1 * i, 0.3) + (1 if i in (0, 4) else 0)
        p.data.copy_(x_fastest(value) if p.ndim == 3 else value)
    cells = torch.cartesian_prod(*[torch.arange(4)] * 3)
    cells = cells[(cells @ torch.tensor([1, 2, 3])) % 5 < 2]
    x = SparseTensor.build(F.pad(cells, (1, 0)).int(), det((26, 32), 0.7, 1.0).float(), resolution=4)
    y, structure = block(x)
    assert (len(x), len(y), len(structure.parents)) == (26, 8, 8)
    assert y.feats.sum().item() == pytest.approx(-21.48335, abs=2e-3)  # float32 sums of 512 numbers near 1
    assert y.feats.abs().sum().item() == pytest.approx(629.23355, abs=2e-3)
    assert y.feats[0, :3].tolist() == pytest.approx([1.479316, 1.881753, 2.029504], abs=2e-5)
