"""Sums of terms: published weights, render terms through a stand-in renderer, samples that count the same."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from voxgen import losses
from voxgen.core import Camera, SparseTensor, TriMesh, VoxelGrid
from voxgen.core.batching import offsets_from_counts
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.losses import MaterialVAELoss, SampleBounds, ShapeVAELoss
from voxgen.representations import OVoxel
from voxgen.testing.shapes import sphere

GOLDEN = Path(__file__).parents[1] / "golden"


def shape_inputs(cells: int = 10, tokens: int = 4) -> dict[str, Any]:
    """Two levels; everything wants a gradient."""
    return {
        "crossing_logits": torch.randn(cells, 3, requires_grad=True),
        "dual_vertices": torch.rand(cells, 3, requires_grad=True),
        "subdivision_logits": [torch.randn(n, 8, requires_grad=True) for n in (tokens, tokens + 2)],
        "mean": torch.randn(tokens, 5, requires_grad=True),
        "logvar": torch.randn(tokens, 5, requires_grad=True),
        "crossings": torch.rand(cells, 3) > 0.5,
        "target_vertices": torch.rand(cells, 3),
        "subdivisions": [torch.rand(n, 8) > 0.5 for n in (tokens, tokens + 2)],
    }


def test_published_weights() -> None:
    found = ShapeVAELoss()(**shape_inputs())
    n = found.numbers()
    assert list(n) == ["total", "crossing", "dual_vertex", "subdivision_0", "subdivision_1", "kl"]
    expected = 0.1 * n["crossing"] + 0.01 * n["dual_vertex"] + 0.1 * (n["subdivision_0"] + n["subdivision_1"]) + 1e-6 * n["kl"]
    assert n["total"] == pytest.approx(expected, rel=1e-6)


def test_published_terms_add_up_to_the_published_total() -> None:
    original = json.loads((GOLDEN / "trellis2_losses.json").read_text())["losses"]
    ours, o = ShapeVAELoss(), original["shape_vae"]
    total = ours.crossing * o["direct/intersected"] + ours.dual_vertex * o["direct/vertice"] + ours.kl * o["kl"]
    total += ours.subdivision * (o["bce_sub0"] + o["bce_sub1"])
    assert total == pytest.approx(o["loss"], rel=1e-6)
    ours, o = MaterialVAELoss(), original["material_vae_l1"]
    assert ours.l1 * o["l1"] + ours.kl * o["kl"] == pytest.approx(o["loss"], rel=1e-6)


def test_a_term_without_weight_is_listed_and_not_counted() -> None:
    inputs = shape_inputs()
    inputs["logvar"] = torch.full((4, 5), 100.0)
    found = ShapeVAELoss(kl=0)(**inputs)
    assert math.isinf(found.numbers()["kl"])
    assert math.isfinite(found.numbers()["total"])
    with pytest.raises(RangeError, match="ShapeVAELoss: at least one of the terms"):
        ShapeVAELoss(crossing=0, dual_vertex=0, subdivision=0, kl=0)(**inputs)
    with pytest.raises(RangeError, match="ShapeVAELoss: depth must be a finite weight, at least 0; got -1"):
        ShapeVAELoss(depth=-1)


def test_an_empty_batch_costs_nothing() -> None:
    inputs = shape_inputs(0, 0)
    inputs["subdivision_logits"], inputs["subdivisions"] = inputs["subdivision_logits"][:1], inputs["subdivisions"][:1]
    found = ShapeVAELoss()(**inputs)
    found.total.backward()
    assert set(found.numbers().values()) == {0.0}


def test_each_sample_counts_the_same() -> None:
    small, large = shape_inputs(3, 2), shape_inputs(40, 9)
    both: dict[str, Any] = {}
    for name, value in small.items():
        other = large[name]
        both[name] = [torch.cat(pair) for pair in zip(value, other, strict=True)] if isinstance(value, list) else torch.cat((value, other))
    bounds = SampleBounds(
        latent=offsets_from_counts([2, 9]), cells=offsets_from_counts([3, 40]), levels=[offsets_from_counts(c) for c in ([2, 9], [4, 11])]
    )
    loss = ShapeVAELoss(per_sample=True)
    found = loss(**both, bounds=bounds).numbers()
    alone = [ShapeVAELoss()(**one).numbers() for one in (small, large)]
    assert found == pytest.approx({name: (alone[0][name] + alone[1][name]) / 2 for name in found}, rel=1e-5)
    packed = ShapeVAELoss()(**both, bounds=bounds).numbers()  # without the option, bounds change nothing
    assert packed == ShapeVAELoss()(**both).numbers()
    assert packed["crossing"] == pytest.approx((3 * alone[0]["crossing"] + 40 * alone[1]["crossing"]) / 43, rel=1e-5)
    with pytest.raises(RangeError, match=r"ShapeVAELoss: with per_sample=True, bounds"):
        loss(**both)


class PointSplats:
    """A stand-in renderer: each vertex is a soft round spot; nearer ones win softly. Blurred, but with gradients to vertices."""

    def __init__(self, perceptual: losses.Perceptual | None = None) -> None:
        self.perceptual = perceptual

    def __call__(self, prediction: Sequence[TriMesh], target: losses.RenderTarget) -> Mapping[str, Tensor]:
        assert target.meshes is not None
        seen = [self.draw(prediction[int(s)], target.cameras[i]) for i, s in enumerate(target.sample)]
        wanted = [self.draw(target.meshes[int(s)], target.cameras[i]) for i, s in enumerate(target.sample)]
        return losses.shape_view_terms(self.join(seen), self.join(wanted), self.perceptual)

    @staticmethod
    def join(views: list[losses.ShapeMaps]) -> losses.ShapeMaps:
        return losses.ShapeMaps(*(torch.cat([getattr(v, name) for v in views]) for name in ("mask", "depth", "normal")))

    @staticmethod
    def draw(mesh: TriMesh, camera: Camera) -> losses.ShapeMaps:
        h, w = camera.height, camera.width
        if mesh.num_faces == 0:
            return losses.ShapeMaps(torch.zeros(1, 1, h, w), torch.zeros(1, 1, h, w), torch.full((1, 3, h, w), 0.5))
        p = camera.to_camera(mesh.vertices)[0]
        normal = mesh.vertex_normals() @ camera.world_to_camera[0, :3, :3].T
        xy = (p[:, :2] * camera.intrinsics[0].diagonal()[:2]) / p[:, 2:] + camera.intrinsics[0, :2, 2]
        rows, columns = torch.meshgrid(torch.arange(h) + 0.5, torch.arange(w) + 0.5, indexing="ij")
        pixels = torch.stack((columns, rows), 2).reshape(-1, 1, 2)
        spot = torch.exp(-(pixels - xy).square().sum(2) / 2) * torch.exp(-10 * (p[:, 2] - p[:, 2].min().detach()))
        weight = spot / (spot.sum(1, keepdim=True) + 1e-3)
        facing = torch.where(normal[:, 2:] > 0, -normal, normal)
        parts = ((weight.sum(1, keepdim=True), 1), (weight @ p[:, 2:], 1), (weight @ facing * 0.5 + 0.5, 3))
        return losses.ShapeMaps(*(value.T.reshape(1, c, h, w) for value, c in parts))


def views(meshes: list[TriMesh], count: int) -> losses.RenderTarget:
    eyes = torch.nn.functional.normalize(torch.randn(count, 3), dim=1) * 2
    return losses.RenderTarget(Camera.look_at(eyes, width=24, height=24), torch.arange(count) % len(meshes), meshes=tuple(meshes))


def test_render_terms_move_vertices() -> None:
    ovoxel = OVoxel.from_mesh(sphere(0.35, 3), 12, materials=False)
    moved = (ovoxel.dual_vertices + 0.6 * torch.rand_like(ovoxel.dual_vertices)).requires_grad_()
    weight = torch.rand(len(ovoxel), 1, requires_grad=True)
    loss = ShapeVAELoss(render=PointSplats(lambda a, b: (a - b).square().mean((1, 2, 3))))
    inputs: dict[str, Any] = shape_inputs(len(ovoxel)) | {
        "dual_vertices": moved,
        "target_vertices": ovoxel.dual_vertices,
        "crossings": ovoxel.intersected,
    }
    meshes = [ovoxel.replace(dual_vertices=moved, split_weight=weight).to_mesh(training=True)]
    found = loss(**inputs, meshes=meshes, views=views([ovoxel.to_mesh()], 2))
    n = found.numbers()
    assert set(losses.SHAPE_TERMS) <= set(n)
    direct = 0.1 * (n["crossing"] + n["subdivision_0"] + n["subdivision_1"]) + 0.01 * n["dual_vertex"] + 1e-6 * n["kl"]
    rendered = n["mask"] + 10 * n["depth"] + n["normal"] + 0.2 * n["normal_ssim"] + 0.2 * n["normal_lpips"]
    assert n["total"] == pytest.approx(direct + rendered, rel=1e-5)
    for name in losses.SHAPE_TERMS:
        gradient = torch.autograd.grad(found.terms[name], (moved, weight), retain_graph=True)
        assert all(bool(g.isfinite().all()) and float(g.abs().max()) > 0 for g in gradient), name
    step = torch.autograd.grad(found.total, moved)[0]
    nearer = [
        ovoxel.replace(dual_vertices=moved.detach() - 0.3 * step / step.abs().max(), split_weight=weight.detach()).to_mesh(training=True)
    ]
    torch.manual_seed(1)
    target = views([ovoxel.to_mesh()], 2)
    before, after = (loss(**inputs, meshes=m, views=target).numbers() for m in (meshes, nearer))
    assert sum(after[k] for k in losses.SHAPE_TERMS) < sum(before[k] for k in losses.SHAPE_TERMS)


def test_render_terms_of_an_empty_mesh_and_of_no_view() -> None:
    empty = TriMesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int32))
    loss = ShapeVAELoss(render=PointSplats())
    found = loss(**shape_inputs(), meshes=[empty, sphere(0.3, 2)], views=views([sphere(0.3, 2)] * 2, 2))
    assert math.isfinite(found.numbers()["total"])
    assert found.numbers()["mask"] > 0
    assert "normal_lpips" not in found.terms


def test_wrong_use_of_the_render_interface_is_named() -> None:
    with pytest.raises(RangeError, match="ShapeVAELoss: with render, meshes and views"):
        ShapeVAELoss(render=PointSplats())(**shape_inputs())
    target = views([sphere(0.3, 2)], 1)

    def unknown(prediction: Sequence[TriMesh], target: losses.RenderTarget) -> Mapping[str, Tensor]:
        return {"gloss": torch.zeros(())}

    def plain(prediction: Sequence[TriMesh], target: losses.RenderTarget) -> Mapping[str, Tensor]:
        return {"mask": torch.zeros(2)}

    with pytest.raises(RangeError, match=r"ShapeVAELoss: render must give terms among mask, .*; got 'gloss'"):
        ShapeVAELoss(render=unknown)(**shape_inputs(), meshes=[], views=target)
    with pytest.raises(DtypeError, match=r"ShapeVAELoss: render must give scalars; got mask = \(2,\)"):
        ShapeVAELoss(render=plain)(**shape_inputs(), meshes=[], views=target)
    with pytest.raises(RangeError, match="RenderTarget: meshes or maps"):
        losses.RenderTarget(target.cameras, target.sample)
    with pytest.raises(RangeError, match=r"RenderTarget: sample must lie in \[0, 1\)"):
        losses.RenderTarget(target.cameras, target.sample + 1, meshes=target.meshes)
    with pytest.raises(ShapeError, match="ShapeMaps: depth"):
        losses.ShapeMaps(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 5), torch.zeros(1, 3, 4, 4))
    with pytest.raises(ShapeError, match="MaterialMaps: surface"):
        losses.MaterialMaps(torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4))


def material_case() -> tuple[SparseTensor, dict[str, Any]]:
    grid, _ = VoxelGrid.build(torch.tensor([[0, 0, 0, 0], [0, 1, 2, 3], [1, 0, 0, 1]], dtype=torch.int32), resolution=4)
    x = SparseTensor(grid, torch.rand(3, 6, requires_grad=True))
    return x, {"target": torch.rand(3, 6), "mean": torch.randn(2, 4), "logvar": torch.randn(2, 4)}


def test_material_loss_of_both_stages() -> None:
    prediction, rest = material_case()

    def drawn(x: SparseTensor, target: losses.RenderTarget) -> Mapping[str, Tensor]:
        image = (x.feats * 0.5 + 0.5).mean(0)[None, :, None, None].expand(1, 6, 12, 12)
        assert isinstance(target.maps, losses.MaterialMaps)
        return losses.material_view_terms(losses.MaterialMaps(image[:, :3], image[:, 3:]), target.maps, lambda a, b: (a - b).abs())

    maps = losses.MaterialMaps(torch.rand(1, 3, 12, 12), torch.rand(1, 3, 12, 12))
    target = losses.RenderTarget(views([sphere(0.3, 2)], 1).cameras, torch.zeros(1, dtype=torch.int64), maps=maps)
    first = MaterialVAELoss()(prediction=prediction, **rest).numbers()
    assert first["total"] == pytest.approx(first["l1"] + 1e-6 * first["kl"], rel=1e-6)
    assert first["l1"] == pytest.approx(float((prediction.feats.detach() - rest["target"]).abs().mean()))
    second = MaterialVAELoss(render=drawn)(prediction=prediction, **rest, views=target)
    n = second.numbers()
    assert set(losses.MATERIAL_TERMS) <= set(n)
    assert n["total"] == pytest.approx(first["total"] + 0.2 * sum(n[name] for name in losses.MATERIAL_TERMS), rel=1e-5)
    second.total.backward()
    assert prediction.feats.grad is not None
    assert bool(prediction.feats.grad.isfinite().all())
    bounds = SampleBounds(latent=offsets_from_counts([1, 1]), cells=prediction.grid.offsets)
    even = MaterialVAELoss(per_sample=True)(prediction=prediction, **rest, bounds=bounds).numbers()
    rows = (prediction.feats.detach() - rest["target"]).abs().mean(1)
    assert even["l1"] == pytest.approx(float((rows[:2].mean() + rows[2]) / 2))
    with pytest.raises(RangeError, match="MaterialVAELoss: with render, views"):
        MaterialVAELoss(render=drawn)(prediction=prediction, **rest)
