"""The texture autoencoder: whose cells it decodes, what decides, its loss, image encoders, files, bad input."""

from __future__ import annotations

import doctest
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from golden import recipe  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.attention import mask_targets
from voxgen.core import Camera, SparseTensor, VoxelGrid
from voxgen.core.errors import RangeError, ShapeError
from voxgen.losses import TextureVAELoss, composite
from voxgen.models import (
    PatchEncoder,
    TextureVAE,
    TextureVAEConfig,
    build,
    encode_images,
    load_pretrained,
    save_pretrained,
    surface_features,
)
from voxgen.models.checkpoints import load_trellis, to_trellis
from voxgen.models.texture_vae import ImageEncoder
from voxgen.ops.candidates import level_structures
from voxgen.ops.surface_cells import surface_channels, surface_grid
from voxgen.render import render_gaussians
from voxgen.testing import shapes
from voxgen.testing.grids import random_grid

GOLDEN = Path(__file__).parents[1] / "golden"
TINY: dict[str, Any] = {
    "resolution": 16,
    "feature_channels": 12,
    "model_channels": 48,
    "num_blocks": 1,
    "num_heads": 4,
    "mask_blocks": 1,
    "widths": (24, 16),
    "num_gaussians": 2,
}


def filled(**fields: Any) -> TextureVAE:
    """A small network with weights that are not zero anywhere."""
    vae = TextureVAE(TextureVAEConfig(**{**TINY, **fields}))
    with torch.no_grad():
        for parameter in vae.parameters():
            if not bool(parameter.any()):
                parameter.normal_(0, 0.05)
    return vae


def batch(*counts: int) -> tuple[SparseTensor, torch.Tensor, tuple[Any, ...]]:
    steps = level_structures(random_grid(counts, 64), 2)
    grid = steps[0].parents
    return SparseTensor(grid, torch.randn(len(grid), 12)), torch.rand(len(grid), 15), steps


def test_true_cells_are_decoded_where_they_are_given() -> None:
    vae = filled()
    features, geometry, steps = batch(150, 0, 80)
    posterior = vae.encode(features, geometry)
    decoded = vae.decode(posterior.mean, structures=steps)
    assert decoded.features.grid.same_cells(steps[-1].children)
    assert decoded.mask is None
    assert decoded.splats is not None
    assert len(decoded.splats) == 2 * len(steps[-1].children)
    assert decoded.splats.batch_size == 3
    cell = steps[-1].children
    centres = cell.frame.centers(cell.cells).repeat_interleave(2, 0)
    assert float((decoded.splats.means.detach() - centres).abs().max()) <= 0.75 / 64 + 1e-6


def test_sources() -> None:
    vae = filled()
    features, geometry, steps = batch(40, 0, 20)
    z = vae.encode(features, geometry).mean
    every = vae.decode(z, source="all", splats=False)
    assert len(every.features) == 64 * len(z)
    assert every.splats is None
    free = vae.decode(z, splats=False)
    assert free.mask is not None
    assert all(int(s.mask().sum(1).min()) >= 1 for s in free.structures)
    again = vae.decode(z, structures=free.structures, splats=False)
    assert torch.equal(again.features.feats, free.features.feats)
    for given in ({"source": "gt"}, {"source": "predicted", "structures": steps}, {"source": "some"}):
        with pytest.raises(RangeError):
            vae.decode(z, **given)  # pyright: ignore[reportArgumentType]


def test_a_part_of_the_cells_gives_their_gaussians() -> None:
    """What drawing tile by tile needs: the head on a selection is the selection of the head."""
    vae = filled()
    features, geometry, steps = batch(60)
    decoded = vae.decode(vae.encode(features, geometry).mean, structures=steps)
    keep = torch.rand(len(decoded.features)) < 0.3
    part = SparseTensor(decoded.features.grid.select(keep), decoded.features.feats[keep])
    own = vae.decoder.gaussians(part)
    assert decoded.splats is not None
    rows = keep.repeat_interleave(2)
    assert torch.allclose(own.means, decoded.splats.means[rows])
    assert torch.allclose(own.sh, decoded.splats.sh[rows], atol=1e-6)


def test_samples_do_not_meet_and_may_be_empty() -> None:
    vae = filled()
    features, geometry, _ = batch(60, 0, 30)
    with torch.no_grad():
        whole = vae.decode(vae.encode(features, geometry).mean)
        rows = features.grid.offsets.tolist()
        for i, part in enumerate(features.unbind()):
            alone = vae.decode(vae.encode(part, geometry[rows[i] : rows[i + 1]]).mean)
            assert whole.splats is not None
            assert alone.splats is not None
            assert torch.allclose(whole.splats.sample(i).means, alone.splats.means, atol=1e-5)


def test_a_training_step_reaches_every_parameter() -> None:
    """Image, regularisers and mask of a tiny batch; the mask's loss reaches the encoder through the latent."""
    vae = filled()
    features, geometry, steps = batch(60, 30)
    decoded, posterior = vae(features, geometry, structures=steps, noise=torch.Generator().manual_seed(0))
    cameras = Camera.look_at(torch.tensor([[0.0, 0.0, 2.0], [2.0, 0.0, 0.0]]), fov=40.0, width=24, height=24)
    image = render_gaussians(decoded.splats, cameras, sample=torch.arange(2), preset="trellis").color.permute(0, 3, 1, 2)
    terms = TextureVAELoss()(
        image=image,
        target=composite(torch.rand(2, 24, 24, 4), torch.ones(2, 3)),
        scales=decoded.splats.scales,
        opacities=decoded.splats.opacities,
        mean=posterior.mean.feats,
        logvar=posterior.logvar,
        mask_logits=decoded.mask.logits,
        mask_targets=mask_targets(decoded.mask, steps),
    )
    assert set(terms.terms) == {"l1", "ssim", "kl", "volume", "opacity", "mask"}
    terms.total.backward()
    missing = [name for name, p in vae.named_parameters() if p.grad is None or not bool(p.grad.isfinite().all())]
    assert missing == []
    fresh = filled()
    z = fresh.encode(features, geometry).mean
    fresh.mask(z, structures=steps).logits[0].sum().backward()
    assert bool(fresh.encoder.input_layer.weight.grad.any())


def test_learns_a_colour_and_a_mask() -> None:
    """A red ball on black: in a few steps the picture's error falls, and the mask's by half."""
    torch.manual_seed(0)
    mesh = shapes.sphere(0.4, 3)
    channels = surface_channels(mesh, 8)
    steps = level_structures(surface_grid(mesh, 32), 2)
    vae = TextureVAE(TextureVAEConfig(**{**TINY, "resolution": 8, "num_gaussians": 4}))
    cameras = Camera.look_at(torch.tensor([[0.0, 0.0, 2.0], [0.0, 0.5, -2.0]]), fov=40.0, width=32, height=32)
    seen = vae(channels.with_feats(torch.ones(len(channels), 12)), channels.feats, structures=steps)[0]
    alpha = (render_gaussians(seen.splats, cameras, preset="trellis").alpha > 0.02).float().detach()
    target = torch.stack((alpha * 0.9, alpha * 0.1, alpha * 0.1), 1)
    optimiser = torch.optim.Adam(vae.parameters(), 3e-3)
    errors, masks = [], []
    for _ in range(15):
        decoded, posterior = vae(channels.with_feats(torch.ones(len(channels), 12)), channels.feats, structures=steps)
        image = render_gaussians(decoded.splats, cameras, preset="trellis").color.permute(0, 3, 1, 2)
        terms = TextureVAELoss(volume=0.0, kl=0.0)(
            image=image, target=target, scales=decoded.splats.scales, opacities=decoded.splats.opacities, mean=posterior.mean.feats,
            logvar=posterior.logvar, mask_logits=decoded.mask.logits, mask_targets=[s.mask() for s in steps],
        )  # fmt: skip
        errors.append(float(terms.terms["l1"].detach()))
        masks.append(float(terms.terms["mask"].detach()))
        optimiser.zero_grad()
        terms.total.backward()
        optimiser.step()
    assert errors[-1] < 0.9 * errors[0]  # 0.81 measured; 0.62 after 25 steps
    assert masks[-1] < 0.6 * masks[0]  # 0.48 measured


def test_loss_is_trellis() -> None:
    """|x − y|, SSIM and KL against the original's trainer; the rest by its definition."""
    about = json.loads((GOLDEN / "trellis_gs_losses.json").read_text())
    render, noise = (torch.from_numpy(recipe.normal(n, (2, 3, 24, 20), 0)) for n in ("render", "noise"))
    a, b = render.sigmoid(), (render + 0.3 * noise).sigmoid()
    mean = torch.from_numpy(recipe.normal("mu", (50, 8), 0))
    logvar = 0.5 * torch.from_numpy(recipe.normal("logvar", (50, 8), 0))
    scales, opacities = torch.rand(9, 3) * 0.02, torch.rand(9)
    terms = TextureVAELoss()(image=a, target=b, scales=scales, opacities=opacities, mean=mean, logvar=logvar)
    assert float(terms.terms["l1"]) == pytest.approx(about["l1"], rel=1e-5)
    assert float(terms.terms["ssim"]) == pytest.approx(1 - about["ssim"], rel=1e-4)
    assert float(terms.terms["kl"]) == pytest.approx(about["kl"], rel=1e-5)
    total = about["l1"] + 0.2 * (1 - about["ssim"]) + 1e-6 * about["kl"]
    total += 1e4 * float(scales.prod(1).mean()) + 1e-3 * float((opacities - 1).square().mean())
    assert float(terms.total) == pytest.approx(total, rel=1e-5)
    with pytest.raises(RangeError, match="volume"):
        TextureVAELoss(volume=-1)


def test_features_of_views_reach_their_samples() -> None:
    ball, turned = shapes.sphere(0.4, 3), shapes.rotated(shapes.torus())
    grid = VoxelGrid.batched([surface_grid(ball, 16), surface_grid(turned, 16)])
    cameras = Camera.look_at(torch.tensor([[0.0, 0.0, 2.0], [2.0, 0.0, 0.0], [0.0, 0.0, -2.0]]), fov=40.0, width=64, height=64)
    maps = torch.tensor([1.0, 2.0, 3.0])[:, None, None, None].expand(3, 1, 8, 8)
    x = surface_features(grid, maps, cameras, sample=[0, 0, 1])
    first, second = x.unbind()
    assert torch.allclose(first.feats, torch.full_like(first.feats, 1.5), atol=1e-5)
    assert torch.allclose(second.feats, torch.full_like(second.feats, 3.0), atol=1e-5)
    for bad in ([0, 0, 2], None):
        with pytest.raises(RangeError):
            surface_features(grid, maps, cameras, sample=bad)


def test_images_are_resized_and_composed_as_the_originals() -> None:
    class Colours:
        channels, size = 3, 8

        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            return images

    assert isinstance(Colours(), ImageEncoder)
    views = torch.zeros(2, 16, 16, 4)
    views[0, ..., 0], views[0, ..., 3] = 1.0, 0.5
    views[1, ..., 1], views[1, ..., 3] = 1.0, 1.0
    maps = encode_images(views, Colours(), chunk=1)
    assert maps.shape == (2, 3, 8, 8)
    assert torch.allclose(maps[0, 0], torch.full((8, 8), 128 / 255))  # 0.5 in 8 bits
    assert torch.allclose(maps[1, 1], torch.ones(8, 8))
    assert encode_images(views[:0], Colours()).shape[:2] == (0, 3)


def test_stand_in_encoder() -> None:
    encoder = PatchEncoder(5, size=32, patch=8)
    images = torch.rand(2, 3, 32, 32)
    assert encoder(images).shape == (2, 5, 4, 4)
    assert torch.equal(encoder(images), PatchEncoder(5, size=32, patch=8)(images))
    assert not any(p.requires_grad for p in encoder.parameters())
    with pytest.raises(ShapeError):
        PatchEncoder(5, size=30, patch=8)
    with pytest.raises(ShapeError):
        encoder(torch.rand(2, 3, 16, 16))


def test_saved_networks_come_back_with_their_thresholds(tmp_path: Path) -> None:
    vae: Any = build("voxgen/texture-vae-small", resolution=16, model_channels=48, feature_channels=12)
    with torch.no_grad():
        vae.mask.predict[0].threshold.fill_(-1.25)
    save_pretrained(vae, tmp_path / "vae.safetensors")
    again: Any = load_pretrained(tmp_path / "vae.safetensors", device="cpu")
    assert again.config == vae.config
    assert float(again.mask.predict[0].threshold) == -1.25
    assert all(torch.equal(a, b) for a, b in zip(vae.state_dict().values(), again.state_dict().values(), strict=True))


def test_trellis_encoder_fits_in() -> None:
    vae = filled(geometry_channels=0)
    load_trellis(vae.encoder, {name: torch.randn_like(value) for name, value in to_trellis(vae.encoder).items()})


def test_example() -> None:
    mesh = shapes.rotated(shapes.torus())
    names = {
        "TextureVAE": TextureVAE, "TextureVAEConfig": TextureVAEConfig, "torch": torch, "mesh": mesh, "surface_grid": surface_grid,
        "surface_channels": surface_channels, "level_structures": level_structures,
    }  # fmt: skip
    (test,) = doctest.DocTestFinder(recurse=False).find(TextureVAE, globs=names)
    report: list[str] = []
    assert doctest.DocTestRunner().run(test, out=report.append).failed == 0, "".join(report)


def few() -> SparseTensor:
    return SparseTensor(random_grid((5,), 16), torch.zeros(5, 12))


BAD: list[tuple[Any, type[Exception], str]] = [
    (lambda: TextureVAEConfig(widths=(0,)), RangeError, "widths"),
    (lambda: TextureVAEConfig(num_gaussians=0), RangeError, "num_gaussians"),
    (lambda: TextureVAEConfig(model_channels=50, num_heads=4), RangeError, "num_heads"),
    (lambda: filled().encode(few()), RangeError, "if and only if"),
    (lambda: filled(geometry_channels=0).encode(few(), torch.zeros(5, 15)), RangeError, "if and only if"),
    (lambda: filled().encode(few(), torch.zeros(5, 14)), ShapeError, "geometry"),
    (lambda: filled().decode(SparseTensor(few().grid, torch.zeros(5, 8)), structures=()), ShapeError, "each of 2 levels"),
    (lambda: composite(torch.zeros(1, 2, 2, 3), torch.zeros(1, 3)), ShapeError, "rgba"),
    (lambda: composite(torch.zeros(1, 2, 2, 4), torch.full((1, 3), np.nan)), RangeError, "finite"),
]


@pytest.mark.parametrize(("attempt", "error", "message"), BAD)
def test_bad_input(attempt: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        attempt()
