"""GaussianSplats: activation, files, transforms, from O-Voxels."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from voxgen.core import Camera, Frame, VoxelGrid
from voxgen.core.errors import DtypeError, FileFormatError, FrameError, RangeError, ShapeError
from voxgen.losses import gaussian_opacity, gaussian_volume
from voxgen.render import render_gaussians
from voxgen.representations import GaussianActivation, GaussianSplats, OVoxel
from voxgen.testing.shapes import sphere

GOLDEN = Path(__file__).parents[1] / "golden"


def arrays(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"{name}.npz") as found:
        return {k: torch.from_numpy(found[k]) for k in found.files}


def some(count: int = 50, degree: int = 0, counts: tuple[int, ...] | None = None, dtype: torch.dtype = torch.float32) -> GaussianSplats:
    g = torch.Generator().manual_seed(count + degree)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=g, dtype=dtype)

    offsets = None if counts is None else torch.tensor([0, *torch.tensor(counts).cumsum(0).tolist()])
    sh = torch.randn(count, (degree + 1) ** 2, 3, generator=g, dtype=dtype) * 0.4
    turns = normalize(torch.randn(count, 4, generator=g, dtype=dtype), dim=1)
    return GaussianSplats(rand(count, 3) - 0.5, turns, 0.01 + 0.08 * rand(count, 3), 0.05 + 0.9 * rand(count), sh, offsets)


def assert_equal(a: GaussianSplats, b: GaussianSplats, atol: float = 0) -> None:
    for name in ("means", "rotations", "scales", "opacities", "sh", "bounds"):
        torch.testing.assert_close(getattr(a, name), getattr(b, name), rtol=0, atol=atol, msg=lambda m, n=name: f"{n}: {m}")
    assert a.up == b.up


class TestActivation:
    def golden(self) -> tuple[dict, dict[str, Tensor], GaussianActivation, VoxelGrid]:
        about = json.loads((GOLDEN / "trellis_slat_gs_decoder.json").read_text())
        data = arrays("trellis_slat_gs_decoder")
        activation = GaussianActivation.from_trellis(about["constructor"]["representation_config"])
        grid, order = VoxelGrid.build(data["coords"], resolution=16, frame=Frame.unit(16, "z"))
        assert torch.equal(order, torch.arange(len(order)))
        return about, data, activation, grid

    def test_is_that_of_the_original(self) -> None:
        about, data, activation, grid = self.golden()
        torch.testing.assert_close(activation.offsets().float(), data["offset_perturbation"], rtol=1e-6, atol=1e-6)
        splats = GaussianSplats.from_features(grid, data["raw"], activation, offset_perturbation=data["offset_perturbation"])
        assert splats.batch_size == 2
        assert splats.up == "z"
        for b in (0, 1):
            one = splats.sample(b)
            values = {"xyz": one.means, "features": one.sh, "scaling": one.scales, "rotation": one.rotations}
            for name, value in {**values, "opacity": one.opacities[:, None]}.items():
                expected = data[f"{name}_{b}"]
                assert float((value - expected).abs().max() / expected.abs().max()) < 1e-6, name
        by_exp = GaussianSplats.from_features(grid, data["raw"], replace(activation, scale_activation="exp"))
        torch.testing.assert_close(by_exp.scales[:8], data["scaling_exp"], rtol=1e-5, atol=1e-8)
        assert float(gaussian_volume(splats.scales)) == pytest.approx(about["losses"]["volume_mean"], rel=1e-5)
        assert float(gaussian_opacity(splats.opacities)) == pytest.approx(about["losses"]["opacity_mean"], rel=1e-5)

    def test_zero_features(self) -> None:
        grid = VoxelGrid.from_sorted(torch.tensor([[0, 0, 0, 0]], dtype=torch.int32), resolution=16, batch_size=1)
        splats = GaussianSplats.from_features(grid, torch.zeros(1, 448, dtype=torch.float64))
        torch.testing.assert_close(splats.scales, torch.full((32, 3), 0.0041, dtype=torch.float64), rtol=1e-9, atol=0)
        torch.testing.assert_close(splats.opacities, torch.full((32,), 0.1, dtype=torch.float64))
        local = (splats.means + 0.5) * 16 - 0.5
        expected = torch.tensor([(-0.5, -0.5, -0.5), (-0.46875, 0, -1 / 6), (-0.4375, -0.25, 1 / 6)], dtype=torch.float64)
        torch.testing.assert_close(local[:3], expected)
        p = GaussianActivation().offsets()
        assert float(p.sum()) == pytest.approx(-3.7649, abs=1e-4)
        assert p[1].tolist() == pytest.approx([-0.733169, 0, -0.225993], abs=1e-6)

    def test_other_resolutions_frames_and_a_cap(self) -> None:
        for resolution, count in ((32, 32), (64, 32), (128, 8), (256, 4), (512, 2)):
            activation = GaussianActivation.at(resolution)
            assert activation.count == count
            cells = VoxelGrid.from_sorted(torch.zeros(1, 4, dtype=torch.int32), resolution=resolution, batch_size=1)
            scales = GaussianSplats.from_features(cells, torch.zeros(1, 14 * count), activation).scales
            in_cells = scales * resolution
            torch.testing.assert_close(in_cells, torch.full_like(in_cells, 0.0041 * 64), rtol=1e-5, atol=0)
            term = GaussianActivation.volume_weight(resolution) * gaussian_volume(scales)
            assert float(term) == pytest.approx(1e4 * 0.0041**3, rel=1e-4)
        big = Frame.box((0, 0, 0), (8, 8, 8), 16)
        grid = VoxelGrid.from_sorted(torch.zeros(1, 4, dtype=torch.int32), resolution=16, batch_size=1, frame=big)
        splats = GaussianSplats.from_features(grid, torch.full((1, 14), 3.0), GaussianActivation(1, largest_scale=0.25))
        assert splats.scales.tolist() == [[0.125] * 3]
        plain = GaussianSplats.from_features(grid, torch.full((1, 14), 3.0), GaussianActivation(1))
        unit = GaussianSplats.from_features(replace_frame(grid), torch.full((1, 14), 3.0), GaussianActivation(1))
        torch.testing.assert_close(plain.scales, 8 * unit.scales)

    def test_batches_empty_samples_and_gradients(self) -> None:
        coords = torch.tensor([[0, 1, 2, 3], [2, 0, 0, 0], [2, 5, 5, 5]], dtype=torch.int32)
        grid = VoxelGrid.from_sorted(coords, resolution=8, batch_size=4)
        feats = torch.randn(3, 28, dtype=torch.float64, requires_grad=True)
        splats = GaussianSplats.from_features(grid, feats, GaussianActivation(2))
        assert splats.bounds.tolist() == [0, 2, 2, 6, 6]

        def activated(f: Tensor) -> tuple[Tensor, ...]:
            found = GaussianSplats.from_features(grid, f, GaussianActivation(2))
            return found.means, found.rotations, found.scales, found.opacities

        assert torch.autograd.gradcheck(activated, feats)
        empty = VoxelGrid.from_sorted(coords[:0], resolution=8, batch_size=2)
        assert len(GaussianSplats.from_features(empty, torch.zeros(0, 28), GaussianActivation(2))) == 0

    def test_errors(self) -> None:
        grid = VoxelGrid.from_sorted(torch.zeros(1, 4, dtype=torch.int32), resolution=8, batch_size=1)
        with pytest.raises(ShapeError, match="14 each"):
            GaussianSplats.from_features(grid, torch.zeros(1, 27), GaussianActivation(2))
        with pytest.raises(ShapeError, match="feats"):
            GaussianSplats.from_features(grid, torch.zeros(2, 28))
        with pytest.raises(DtypeError, match="feats"):
            GaussianSplats.from_features(grid, torch.zeros(1, 28).half())
        flat = VoxelGrid.from_sorted(grid.coords, resolution=8, batch_size=1, frame=Frame((0, 0, 0), (1, 1, 2)))
        with pytest.raises(FrameError, match="cubes"):
            GaussianSplats.from_features(flat, torch.zeros(1, 28))
        for bad in (
            {"voxel_size": 1.0},
            {"opacity_bias": 1.0},
            {"scale_bias": 0.0},
            {"kernel": -1.0},
            {"rates": {"offset": 1.0}},
            {"largest_scale": 0.0},
        ):
            with pytest.raises(RangeError, match="GaussianActivation"):
                GaussianActivation(**bad)
        with pytest.raises(RangeError, match="from_trellis"):
            GaussianActivation.from_trellis({"lr": {}})


def replace_frame(grid: VoxelGrid) -> VoxelGrid:
    return VoxelGrid.from_sorted(grid.coords, resolution=grid.resolution, batch_size=grid.batch_size)


class TestPly:
    def original(self) -> tuple[GaussianSplats, dict[str, Tensor]]:
        z = arrays("trellis_gs_ply")
        return GaussianSplats(z["xyz"], z["rotation_raw"], z["scaling"], z["opacity"][:, 0], z["features"], up="z"), z

    @pytest.mark.parametrize(("up", "key"), [("-y", "ply_default"), ("z", "ply_identity")])
    def test_files_of_the_original(self, up: str, key: str) -> None:
        splats, z = self.original()
        expected = bytes(z[key].numpy())
        file = io.BytesIO()
        splats.save_ply(file, up=up)  # pyright: ignore[reportArgumentType]
        start = expected.index(b"end_header\n") + 11
        assert file.getvalue()[:start] == expected[:start]
        written, wanted = (np.frombuffer(data[start:], "<f4") for data in (file.getvalue(), expected))
        # values up to 8 in float32: a few units in the last place of the original's own float32 arithmetic
        np.testing.assert_allclose(written, wanted, rtol=0, atol=2e-6)
        back = GaussianSplats.load_ply(io.BytesIO(expected), up=up, into="z")  # pyright: ignore[reportArgumentType]
        torch.testing.assert_close(back.means, splats.means, rtol=0, atol=1e-6)
        torch.testing.assert_close(back.scales, splats.scales, rtol=1e-5, atol=0)
        torch.testing.assert_close(back.opacities, splats.opacities, rtol=0, atol=1e-6)
        turns = normalize(back.rotations, dim=1)
        assert float(((turns * z["rotation"]).sum(1).abs() - 1).abs().max()) < 1e-5

    @pytest.mark.parametrize("layout", ["inria", "gsplat"])
    @pytest.mark.parametrize("degree", [0, 1, 2, 3])
    def test_round_trip(self, layout: str, degree: int, tmp_path: Path) -> None:
        splats = some(degree=degree)
        for up in ("y", "z", "-y"):
            splats.save_ply(tmp_path / "a.ply", up=up, layout=layout)  # pyright: ignore[reportArgumentType]
            back = GaussianSplats.load_ply(tmp_path / "a.ply", up=up)  # pyright: ignore[reportArgumentType]
            sign = (back.rotations * splats.rotations).sum(1, keepdim=True).sign()
            assert_equal(replace(back, rotations=back.rotations * sign), splats, atol=5e-6)

    def test_up_axis_in_the_file(self, tmp_path: Path) -> None:
        one = some(1)
        high = replace(one, means=torch.tensor([[0.0, 0.4, 0.1]]))
        high.save_ply(tmp_path / "a.ply")
        stored = np.frombuffer((tmp_path / "a.ply").read_bytes().split(b"end_header\n", 1)[1], "<f4")
        assert stored[:3].tolist() == pytest.approx([0, -0.4, -0.1])
        as_z = GaussianSplats.load_ply(tmp_path / "a.ply", into="z")
        assert as_z.up == "z"
        assert as_z.means[0].tolist() == pytest.approx([0, -0.1, 0.4])
        assert as_z.with_up("y").means[0].tolist() == pytest.approx([0, 0.4, 0.1])

    def test_bounds_of_opacity_and_scale(self, tmp_path: Path) -> None:
        splats = replace(some(2), opacities=torch.tensor([0.0, 1.0]), scales=torch.zeros(2, 3))
        splats.save_ply(tmp_path / "a.ply")
        back = GaussianSplats.load_ply(tmp_path / "a.ply")
        torch.testing.assert_close(back.opacities, splats.opacities, rtol=0, atol=2e-7)
        assert float(back.scales.max()) < 1e-29
        none = some(0)
        none.save_ply(tmp_path / "b.ply")
        assert len(GaussianSplats.load_ply(tmp_path / "b.ply")) == 0

    def test_damaged_files(self, tmp_path: Path) -> None:
        path = tmp_path / "a.ply"
        some(20).save_ply(path)
        data = path.read_bytes()
        wrong: dict[str, bytes] = {
            "truncated": data[:-1],
            "end_header": data[:60],
            "must start with 'ply'": b"solid" + data,
            "properties are missing: opacity": data.replace(b"float opacity", b"float opacitx"),
            "missing: scale_2, rot_3": data.replace(b"scale_2", b"scale_9").replace(b"rot_3", b"rot_9"),
            "f_rest_0": data.replace(b"float nx", b"float f_rest_0"),
            "each name once": data.replace(b"float ny", b"float nx"),
            "format must be binary_little_endian": data.replace(b"binary_little_endian", b"ascii"),
            "first element": data.replace(b"element vertex", b"element face"),
            "no usable means": data[:-68] + np.full(17, np.nan, "<f4").tobytes(),
            "no usable rotations": data[:-16] + bytes(16),
        }
        for message, content in wrong.items():
            with pytest.raises(FileFormatError, match=message):
                GaussianSplats.load_ply(io.BytesIO(content))
        with pytest.raises(FileFormatError, match="max_bytes"):
            GaussianSplats.load_ply(path, max_bytes=100)
        with pytest.raises(FileNotFoundError):
            GaussianSplats.load_ply(tmp_path / "none.ply")
        with pytest.raises(RangeError, match="a batch of 2"):
            some(10, counts=(4, 6)).save_ply(path)
        with pytest.raises(RangeError, match="finite"):
            replace(some(1), means=torch.full((1, 3), torch.nan)).save_ply(path)
        for word in ({"up": "x"}, {"layout": "other"}):
            with pytest.raises(RangeError):
                some(1).save_ply(path, **word)  # pyright: ignore[reportArgumentType]
        assert path.read_bytes() == data

    def test_files_of_others(self) -> None:
        """Another order, doubles, further properties and elements, comments, lines that end in \\r\\n."""
        splats, _ = self.original()
        file = io.BytesIO()
        splats.save_ply(file, up="z")
        head, body = file.getvalue().split(b"end_header\n", 1)
        table = np.frombuffer(body, "<f4").reshape(-1, 17)
        names = [line.split()[2].decode() for line in head.split(b"\n") if line.startswith(b"property")]
        layout = np.dtype([("red", "u1"), *((n, "<f8") for n in reversed(names)), ("label", "<i4")])
        rows = np.zeros(len(table), layout)
        for i, name in enumerate(names):
            rows[name] = table[:, i]
        kinds = {"|u1": "uchar", "<f8": "double", "<i4": "int"}
        lines = ["ply", "format binary_little_endian 1.0", "comment made elsewhere", f"element vertex {len(rows)}"]
        lines += [f"property {kinds[layout[n].str]} {n}" for n in layout.names or ()] + [
            "element extra 1",
            "property list uchar int x",
            "end_header",
            "",
        ]
        back = GaussianSplats.load_ply(io.BytesIO("\r\n".join(lines).encode() + rows.tobytes() + bytes(9)), up="z", into="z")
        assert_equal(back, GaussianSplats.load_ply(io.BytesIO(file.getvalue()), up="z", into="z"))


class TestTransform:
    def view(self, splats: GaussianSplats, matrix: Tensor | None = None) -> Tensor:
        camera = Camera.look_at(torch.tensor([[0.9, 0.7, 1.3]], dtype=torch.float64), width=40, height=30)
        if matrix is not None:  # the camera moves with the Gaussians; a scale of the world scales its translation
            scale = torch.linalg.det(matrix[:3, :3]) ** (1 / 3)
            pose = camera.world_to_camera @ torch.linalg.inv(matrix)
            pose[:, :3] *= scale
            camera = Camera(pose, camera.intrinsics, 40, 30, camera.near, 1000.0)
        return render_gaussians(splats, camera).color

    @settings(max_examples=15, deadline=None)
    @given(st.integers(0, 3), st.integers(0, 1000))
    def test_looks_the_same_to_a_camera_that_moves_along(self, degree: int, seed: int) -> None:
        g = torch.Generator().manual_seed(seed)
        q = torch.linalg.qr(torch.randn(3, 3, generator=g, dtype=torch.float64))[0]
        q = q * torch.linalg.det(q).sign()
        matrix = torch.eye(4, dtype=torch.float64)
        matrix[:3, :3] = 1.7 * q
        matrix[:3, 3] = torch.randn(3, generator=g, dtype=torch.float64)
        splats = some(30, degree, dtype=torch.float64)
        torch.testing.assert_close(self.view(splats.transform(matrix), matrix), self.view(splats), rtol=0, atol=1e-10)

    def test_half_turns_and_the_identity(self) -> None:
        splats = some(20, 3, dtype=torch.float64)
        for turn in (
            torch.diag(torch.tensor([1.0, -1, -1])),
            torch.diag(torch.tensor([-1.0, 1, -1])),
            torch.diag(torch.tensor([-1.0, -1, 1])),
        ):
            twice = splats.transform(turn).transform(turn)
            torch.testing.assert_close(self.view(twice), self.view(splats), rtol=0, atol=1e-10)
        torch.testing.assert_close(splats.transform(torch.eye(3)).sh, splats.sh, rtol=0, atol=1e-12)

    @pytest.mark.parametrize(
        ("matrix", "message"),
        [
            (torch.diag(torch.tensor([1.0, 1.0, -1.0])), "orientation"),
            (torch.diag(torch.tensor([1.0, 1.0, 2.0])), "one scale"),
            (torch.zeros(3, 3), "orientation"),
            (torch.full((4, 4), torch.nan), "finite"),
            (torch.diag(torch.tensor([1.0, 1.0, 1.0, 2.0])), "last row"),
        ],
    )
    def test_other_matrices_are_refused(self, matrix: Tensor, message: str) -> None:
        with pytest.raises(RangeError, match=message):
            some(3).transform(matrix)
        with pytest.raises(ShapeError, match="matrix"):
            some(3).transform(torch.eye(2))

    def test_crop_and_merge(self) -> None:
        splats = some(60, counts=(20, 0, 40))
        left, right = splats.crop((-1, -1, -1), (0, 1, 1)), splats.crop((0, -1, -1), (1, 1, 1))
        assert len(left) + len(right) == 60
        assert left.batch_size == 3
        both = left.merge(right)
        assert both.bounds.tolist() == splats.bounds.tolist()
        for i in range(3):
            a, b = both.sample(i), splats.sample(i)
            assert torch.equal(a.means[a.means[:, 0].argsort()], b.means[b.means[:, 0].argsort()])
        mixed = some(5, 2).merge(some(4))
        assert mixed.degree == 2
        assert float(mixed.sh[5:, 1:].abs().max()) == 0
        with pytest.raises(RangeError, match="low must be less"):
            splats.crop((0, 0, 0), (0, 1, 1))
        with pytest.raises(ShapeError, match="number of objects"):
            splats.merge(some(3))
        with pytest.raises(FrameError, match="up axis"):
            some(3).merge(replace(some(3), up="z"))
        with pytest.raises(DtypeError, match="one dtype"):
            some(3).merge(some(3).to(dtype=torch.float64))


def test_record() -> None:
    splats = some(30, 1, counts=(10, 0, 20))
    assert repr(splats) == "GaussianSplats(30 Gaussians, batch_size=3, degree=1, device=cpu)"
    assert isinstance(splats.sample(2), GaussianSplats)
    assert_equal(GaussianSplats.batched([splats.sample(i) for i in range(3)]), splats)
    assert_equal(splats.select(torch.arange(30)), splats)
    assert splats.select(splats.opacities > 2).bounds.tolist() == [0, 0, 0, 0]
    assert splats.to(dtype=torch.float64).dtype == torch.float64
    makers: list[tuple[type[Exception], Callable[[], object]]] = [
        (ShapeError, lambda: replace(splats, sh=splats.sh[:, :3])),
        (ShapeError, lambda: replace(splats, opacities=splats.opacities[:5])),
        (DtypeError, lambda: replace(splats, scales=splats.scales.double())),
        (RangeError, lambda: replace(splats, offsets=torch.tensor([0, 5]))),
        (RangeError, lambda: replace(splats, offsets=torch.tensor([0, 20, 10, 30]))),
        (RangeError, lambda: replace(splats, up="x")),
        (RangeError, lambda: splats.sample(3)),
        (RangeError, lambda: GaussianSplats.batched([])),
        (ShapeError, lambda: GaussianSplats.batched([splats, some(3)])),
    ]
    for error, make in makers:
        with pytest.raises(error):
            make()


def test_save_and_load(tmp_path: Path) -> None:
    splats = replace(some(30, 2, counts=(10, 20)), up="z")
    splats.save(tmp_path / "a.safetensors")
    assert_equal(GaussianSplats.load(tmp_path / "a.safetensors"), splats)
    with pytest.raises(FileFormatError, match="suffix"):
        splats.save(tmp_path / "a.npz")
    (tmp_path / "b.safetensors").write_bytes((tmp_path / "a.safetensors").read_bytes()[:-5])
    with pytest.raises(FileFormatError, match="whole"):
        GaussianSplats.load(tmp_path / "b.safetensors")
    with pytest.raises(RangeError, match="finite"):
        replace(splats, scales=splats.scales / 0).save(tmp_path / "c.safetensors")


class TestFromOVoxel:
    def test_a_coloured_ball(self) -> None:
        ovoxel = OVoxel.from_mesh(sphere(0.4, 3), resolution=32, materials=False)
        color = torch.rand(len(ovoxel), 3)
        ovoxel = ovoxel.replace(materials={"base_color": color, "alpha": torch.full((len(ovoxel), 1), 0.5)})
        splats = GaussianSplats.from_ovoxel(ovoxel)
        assert 0.9 * len(ovoxel) < len(splats) <= len(ovoxel)
        torch.testing.assert_close(splats.means.norm(dim=1), torch.full((len(splats),), 0.4), rtol=0, atol=0.01)
        camera = Camera.look_at(torch.tensor([[0.0, 0.0, 1.6]]), width=48, height=48)
        out = render_gaussians(GaussianSplats.from_ovoxel(ovoxel.replace(materials={})), camera, normals=True)
        assert out.normal is not None
        middle = out.alpha[0, 20:28, 20:28]
        assert float(middle.min()) > 0.95  # no gaps
        torch.testing.assert_close(out.depth[0, 24, 24], torch.tensor(1.2), rtol=0, atol=0.02)
        assert float(out.normal[0, 24, 24, 2]) > 0.98
        assert float(out.color[0, 24, 24, 0]) == pytest.approx(0.8, abs=0.04)
        assert float(splats.opacities.max()) == pytest.approx(0.49)

    def test_edges(self) -> None:
        ovoxel = OVoxel.from_mesh(sphere(0.4, 1), resolution=8, materials=False)
        empty = ovoxel.rows(ovoxel.grid.select(torch.zeros(len(ovoxel), dtype=torch.bool)), torch.zeros(len(ovoxel), dtype=torch.bool))
        assert len(GaussianSplats.from_ovoxel(empty)) == 0
        two = OVoxel.batched([ovoxel, ovoxel])
        assert GaussianSplats.from_ovoxel(two).batch_size == 2
        for bad in ({"spread": 0.0}, {"thickness": -1.0}, {"opacity": 1.0}):
            with pytest.raises(RangeError, match="from_ovoxel"):
                GaussianSplats.from_ovoxel(ovoxel, **bad)
