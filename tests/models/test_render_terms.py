"""Render terms with voxgen's renderer: what they compare, and that predictions learn from them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from voxgen.core import Frame, Material, SparseTensor, Texture, TriMesh
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.losses import MATERIAL_TERMS, SHAPE_TERMS, MaterialMaps, MaterialVAELoss, RenderTarget, ShapeMaps, ShapeVAELoss
from voxgen.models import MaterialRenderTerms, MeshRenderTerms, shape_maps
from voxgen.render import random_cameras, render_geometry
from voxgen.representations import OVoxel
from voxgen.testing.features import RandomFeatures
from voxgen.testing.shapes import rotated, sphere, torus, wavy_sheet

EMPTY = TriMesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int32))


def views(meshes: list[TriMesh], per_mesh: int = 1, size: int = 32, **fields) -> RenderTarget:
    sample = torch.arange(len(meshes)).repeat_interleave(per_mesh)
    cameras = random_cameras(len(sample), width=size, height=size, generator=torch.Generator().manual_seed(0))
    return RenderTarget(cameras, sample, meshes=tuple(meshes), **fields)


def test_equal_shapes_cost_nothing_and_names_are_those_of_the_loss() -> None:
    meshes = [rotated(torus()), sphere()]
    terms = MeshRenderTerms(RandomFeatures())(meshes, views(meshes))
    assert tuple(terms) == SHAPE_TERMS
    assert all(abs(float(term)) < 1e-6 for term in terms.values())
    # whatever way the faces wind, where both sides are turned
    inverted = [m.replace(faces=m.faces.flip(1)) for m in meshes]
    assert float(MeshRenderTerms()(inverted, views(meshes))["normal"]) < 1e-6
    assert float(MeshRenderTerms.trellis()(inverted, views(meshes))["normal"]) > 0.01
    assert float(MeshRenderTerms.trellis()(meshes, views(inverted))["normal"]) < 1e-6


def test_maps_in_the_layout_of_losses() -> None:
    target = views([sphere()])
    maps = render_geometry(sphere(), target.cameras, normal_space="camera")
    found = shape_maps(maps)
    assert torch.equal(found.normal[0, :, 16, 16], (maps.normal[0, 16, 16] + 1) / 2)
    corner = (found.mask[0, 0, 0, 0], found.depth[0, 0, 0, 0], *found.normal[0, :, 0, 0])
    assert [float(value) for value in corner] == [0.0, 0.0, 0.5, 0.5, 0.5]


def test_given_maps_replace_the_meshes_and_coverage_counts() -> None:
    mesh, other = rotated(torus()), sphere()
    drawn = views([mesh])
    terms = MeshRenderTerms.trellis(resolution=64)
    wanted = terms.render([mesh], drawn, is_target=True)
    given = RenderTarget(drawn.cameras, drawn.sample, maps=wanted)
    for name, term in terms([other], given).items():
        assert torch.equal(term, terms([other], drawn)[name]), name
    coverage = torch.zeros(1, 32, 32, dtype=torch.bool)
    coverage[:, :4, :4] = True  # background in both
    hidden = RenderTarget(drawn.cameras, drawn.sample, maps=wanted, coverage=coverage)
    assert all(float(term) < 1e-6 for term in terms([other], hidden).values())


def test_smooth_depths() -> None:
    target = views([sphere(0.4)])
    near = [sphere(0.401)]
    absolute, smooth = MeshRenderTerms(within_target=True)(near, target), MeshRenderTerms.trellis(resolution=8)(near, target)
    # errors far below β = 1 / 16 are squared
    assert 0 < float(smooth["depth"]) < 0.2 * float(absolute["depth"])


def test_empty_predictions_and_no_views() -> None:
    meshes = [sphere(), torus()]
    prediction = [EMPTY, EMPTY.replace(vertices=torch.zeros(0, 3, requires_grad=True))]
    terms = MeshRenderTerms(RandomFeatures())(prediction, views(meshes))
    assert all(math.isfinite(float(term.detach())) for term in terms.values())
    assert float(terms["mask"].detach()) > 0.05
    torch.stack(list(terms.values())).sum().backward()
    none = views(meshes)
    none = RenderTarget(none.cameras[torch.zeros(0).long()], none.sample[:0], meshes=none.meshes)
    assert all(float(term) == 0 for term in MeshRenderTerms(RandomFeatures())(meshes, none).values())


@pytest.mark.parametrize("terms", [MeshRenderTerms(RandomFeatures()), MeshRenderTerms.trellis(supersample=2)])
def test_a_shape_autoencoder_learns_from_its_loss(terms: MeshRenderTerms) -> None:
    """Dual vertices that start in the middle of their cells, as an SC-VAE's decoder would give them, under its whole loss."""
    targets = [rotated(torus()), rotated(sphere())]
    truth = [OVoxel.from_mesh(mesh, 16, materials=False, frame=Frame.unit(16)) for mesh in targets]
    whole = OVoxel.batched([t.replace(crossing_sign=None, split_weight=None) for t in truth])
    logits = torch.where(whole.intersected, 4.0, -4.0)
    vertices = torch.full_like(whole.dual_vertices, 0.5).requires_grad_()
    weight = torch.full((len(whole), 1), 0.5, requires_grad=True)
    loss = ShapeVAELoss(dual_vertex=0.0, render=terms)
    target = views(targets, per_mesh=2)
    optimizer = torch.optim.Adam([vertices, weight], lr=0.03)
    found: list[dict[str, float]] = []
    for _ in range(12):
        predicted = whole.replace(dual_vertices=vertices, split_weight=weight.sigmoid())
        result = loss(
            crossing_logits=logits,
            dual_vertices=vertices,
            subdivision_logits=[],
            mean=torch.zeros(1, 1),
            logvar=torch.zeros(1, 1),
            crossings=whole.intersected,
            target_vertices=whole.dual_vertices,
            subdivisions=[],
            meshes=[predicted.sample(i).to_mesh(training=True) for i in range(2)],
            views=target,
        )
        optimizer.zero_grad()
        result.total.backward()
        optimizer.step()
        found.append(result.numbers())
    assert found[-1]["total"] < 0.7 * found[0]["total"]
    for name in ("mask", "depth", "normal", "dual_vertex"):
        assert found[-1][name] < found[0][name], name


def checkered() -> TriMesh:
    """A sheet with a coarse pattern in all materials."""
    image = torch.zeros(8, 8, 3)
    image[:4, :, 0], image[:, :4, 1], image[2:6, 2:6, 2] = 0.8, 0.6, 0.9
    surface = Texture(torch.rand(4, 4, 3, generator=torch.Generator().manual_seed(0)), (0,))
    rough = Texture(surface.image, (1,))
    material = Material(
        base_color=Texture(image, (0, 1, 2), srgb=True), metallic=surface, roughness=rough, alpha_factor=0.7, alpha_mode="BLEND"
    )
    return rotated(wavy_sheet().replace(materials=(material,)), 0.4)


def prediction_of(meshes: list[TriMesh], resolution: int = 48) -> SparseTensor:
    return SparseTensor.batched([OVoxel.from_mesh(mesh, resolution).material_tensor() for mesh in meshes])


def test_true_materials_look_like_the_textures() -> None:
    meshes = [checkered(), checkered()]
    target = views(meshes, size=48)
    prediction = prediction_of(meshes)
    terms = MaterialRenderTerms(RandomFeatures())
    found = terms(prediction, target)
    assert set(found) == set(MATERIAL_TERMS)
    grey = terms(prediction.with_feats(torch.zeros_like(prediction.feats)), target)
    for name, term in found.items():
        assert float(term) < 0.4 * float(grey[name]), name
    # alpha is the sixth channel, one number everywhere
    changed = prediction.feats.clone()
    changed[:, 5] = -1.0
    assert float(terms(prediction.with_feats(changed), target)["surface_ssim"]) > 2 * float(found["surface_ssim"])
    assert float(terms(prediction.with_feats(changed), target)["base_color_ssim"]) == float(found["base_color_ssim"])


def test_each_view_reads_its_own_sample() -> None:
    mesh = checkered()
    both = prediction_of([mesh, mesh], 24)
    spoiled = both.with_feats(both.feats * (both.coords[:, :1] == 0))
    cameras = views([mesh, mesh]).cameras[torch.tensor([0])]
    zero, one = (RenderTarget(cameras, torch.tensor([s]), meshes=(mesh, mesh)) for s in (0, 1))
    terms = MaterialRenderTerms()
    assert torch.equal(terms(spoiled, zero)["base_color_ssim"], terms(both, zero)["base_color_ssim"])
    assert float(terms(spoiled, one)["base_color_ssim"]) > 2 * float(terms(both, one)["base_color_ssim"])


def test_a_material_autoencoder_learns_from_its_loss() -> None:
    mesh = checkered()
    start = prediction_of([mesh], 24)
    feats = torch.zeros_like(start.feats).requires_grad_()
    loss = MaterialVAELoss(l1=0.0, render=MaterialRenderTerms(RandomFeatures()))
    target = views([mesh], per_mesh=2)
    optimizer = torch.optim.Adam([feats], lr=0.05)
    totals = []
    for _ in range(10):
        z = torch.zeros(1, 1)
        result = loss(prediction=start.with_feats(feats), target=start.feats, mean=z, logvar=z, views=target)
        optimizer.zero_grad()
        result.total.backward()
        optimizer.step()
        totals.append(result.numbers())
    assert totals[-1]["total"] < 0.7 * totals[0]["total"]
    assert totals[-1]["l1"] < totals[0]["l1"]


def test_given_material_maps() -> None:
    mesh = checkered()
    drawn, prediction = views([mesh]), prediction_of([mesh], 24)
    zeros: Tensor = torch.zeros(1, 3, 32, 32)
    given = RenderTarget(drawn.cameras, drawn.sample, meshes=drawn.meshes, maps=MaterialMaps(zeros, zeros))
    assert float(MaterialRenderTerms()(prediction, given)["base_color_ssim"]) > 0.05
    none = RenderTarget(drawn.cameras[torch.zeros(0).long()], drawn.sample[:0], meshes=drawn.meshes)
    assert all(float(term) == 0 for term in MaterialRenderTerms()(prediction, none).values())


def test_bad_render_terms() -> None:
    mesh = sphere()
    drawn = views([mesh])
    image: Tensor = torch.zeros(1, 1, 32, 32)
    shapes, colors = ShapeMaps(image, image, image.expand(-1, 3, -1, -1)), MaterialMaps(*[image.expand(-1, 3, -1, -1)] * 2)
    with pytest.raises(RangeError, match="face_camera must be one of"):
        MeshRenderTerms(face_camera="none")  # pyright: ignore[reportArgumentType]
    with pytest.raises(RangeError, match="depth_beta must be positive"):
        MeshRenderTerms(depth_beta=0.0)
    with pytest.raises(RangeError, match="resolution must be at least 1"):
        MeshRenderTerms.trellis(resolution=0)
    with pytest.raises(DtypeError, match="must be ShapeMaps; got MaterialMaps"):
        MeshRenderTerms()([mesh], RenderTarget(drawn.cameras, drawn.sample, maps=colors))
    with pytest.raises(RangeError, match="sample must name some of the 1 meshes"):
        MeshRenderTerms()([mesh], RenderTarget(drawn.cameras, torch.tensor([1]), maps=shapes))
    prediction = prediction_of([checkered()], 16)
    terms = MaterialRenderTerms()
    with pytest.raises(ShapeError, match="6"):
        terms(prediction.with_feats(prediction.feats[:, :5]), drawn)
    with pytest.raises(RangeError, match=r"target\.meshes must be there"):
        terms(prediction, RenderTarget(drawn.cameras, drawn.sample, maps=colors))
    with pytest.raises(DtypeError, match="must be MaterialMaps"):
        terms(prediction, RenderTarget(drawn.cameras, drawn.sample, meshes=(mesh,), maps=shapes))
    with pytest.raises(RangeError, match="the prediction's 1 samples"):
        terms(prediction, RenderTarget(drawn.cameras, torch.tensor([1]), meshes=(mesh, mesh)))
