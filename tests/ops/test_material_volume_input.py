"""Materials of cells: wrong input, warnings, progress, and what must not change a result."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from material_volume_inputs import ENGINES, FAST, colored, convert, joined, noise, quad

from voxgen.core import Frame, Material, TriMesh
from voxgen.core.errors import DtypeError, FrameError, MeshError, MeshWarning, RangeError, ShapeError
from voxgen.ops.material_volume import CHANNELS, material_volume
from voxgen.testing import shapes
from voxgen.testing.cases.material_volume import painted, with_attributes
from voxgen.testing.cases.voxelize import grid_of


def test_wrong_arguments_are_named() -> None:
    mesh = painted(shapes.rotated(quad(0.33)))
    wrong: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"channels": ["colour"]}, RangeError, "channels must be one of 'base_color'"),
        ({"channels": "alpha"}, DtypeError, r"Write \['alpha'\]"),
        ({"resolution": 0}, RangeError, "resolution must be at least 1|resolution must be from 1"),
        ({"resolution": -4}, RangeError, "resolution"),
        ({"resolution": 2.5}, DtypeError, "whole number"),
        ({"resolution": 100_000}, RangeError, "resolution"),
        ({"voxel_size": 0.0}, RangeError, "voxel_size must be positive"),
        ({"origin": (0.0, float("nan"), 0.0)}, RangeError, "origin must be finite"),
        ({"origin": (0.3, 0.3, 0.3)}, FrameError, "inside the box"),
        ({"compat": "trellis"}, RangeError, "'trellis2'"),
        ({"color_space": "sRGB"}, RangeError, "'linear'"),
        ({"color_space": "linear", "compat": "trellis2"}, RangeError, "encoded"),
        ({"mip_offset": float("inf")}, RangeError, "mip_offset"),
        ({"mip_offset": "sharp"}, RangeError, "mip_offset"),
        ({"compat": "trellis2", "voxel_size": 0.6}, RangeError, "unit cube"),
    ]
    for options, error, message in wrong:
        with pytest.raises(error, match=message):
            material_volume(mesh, **{**grid_of(6), **options})  # pyright: ignore[reportArgumentType]
    with pytest.raises(DtypeError, match="load_mesh"):
        convert("asset.glb", 6)  # pyright: ignore[reportArgumentType]


def test_broken_meshes_are_named() -> None:
    mesh = painted(shapes.rotated(quad(0.33)))
    nan = torch.full_like(mesh.vertices, float("nan"))
    bad_uv = mesh.uv.clone()  # pyright: ignore[reportOptionalMemberAccess]
    bad_uv[2, 0] = float("inf")
    wrong: list[tuple[TriMesh, type[Exception], str]] = [
        (mesh.replace(faces=mesh.faces[:0], face_material=None), MeshError, "at least one face"),
        (mesh.replace(vertices=nan), MeshError, "finite"),
        (mesh.replace(faces=mesh.faces + 9), MeshError, "must index"),
        (mesh.replace(faces=torch.zeros_like(mesh.faces)), MeshError, "area"),
        (mesh.replace(face_material=torch.full((mesh.num_faces,), 4)), MeshError, "face_material"),
        (mesh.replace(uv=bad_uv, face_material=None), MeshError, "uv must be finite where faces use it.*vertex 2"),
        (mesh.replace(normals=nan), MeshError, "normals must be finite"),
        (mesh.replace(attributes={"color": torch.ones(4, 2)}), ShapeError, "3 or 4 columns"),
        (mesh.replace(attributes={"metallic": torch.ones(4, 3)}), ShapeError, "1 columns"),
        (mesh.replace(attributes={"color": torch.ones(4, 3, dtype=torch.uint8)}), DtypeError, "Divide bytes by 255"),
        (mesh.replace(attributes={"alpha": torch.full((4, 1), float("nan"))}), MeshError, "attributes"),
        (mesh.replace(materials=(colored(torch.full((2, 2, 3), float("nan"))),), face_material=None), RangeError, "texture.*finite"),
    ]
    for broken, error, message in wrong:
        with pytest.raises(error, match=message):
            convert(broken, 6, channels=tuple(CHANNELS))


def test_what_is_not_used_may_be_broken() -> None:
    mesh = painted(shapes.rotated(quad(0.33)))
    nan = torch.full((4, 2), float("nan"))
    plain = mesh.replace(uv=nan, uv1=nan, normals=torch.full((4, 3), float("nan")), materials=(Material(),), face_material=None)
    assert bool(torch.isfinite(joined(convert(plain, 6))).all())
    lonely = mesh.replace(  # a vertex without faces
        vertices=torch.cat((mesh.vertices, torch.zeros(1, 3))),
        uv=torch.cat((mesh.uv, nan[:1])),  # pyright: ignore[reportArgumentType]
        uv1=None,
        materials=(colored(noise(4, 4, 3)),),
        face_material=None,
    )
    assert bool(torch.isfinite(joined(convert(lonely, 6))).all())


@pytest.mark.parametrize("backend", ENGINES)
def test_a_texture_without_coordinates_warns_and_reads_the_origin(backend: str) -> None:
    image = noise(4, 4, 3)
    mesh = quad(0.4, material=colored(image, wrap=("clamp", "clamp"))).replace(uv=None)
    with pytest.warns(MeshWarning, match=r"no uv.*\(0, 0\)"):
        found = convert(mesh, 6, channels=["base_color"], backend=backend).values["base_color"]
    assert torch.allclose(found, (image[3, 0].float() / 255).expand_as(found), atol=1e-6)
    second = mesh.replace(uv=torch.zeros(4, 2), materials=(colored(image, uv_set=1),))
    with pytest.warns(MeshWarning, match="no uv1"):
        convert(second, 6, backend=backend)


def test_compat_warns_that_it_knows_no_vertex_attributes() -> None:
    mesh = with_attributes(quad(0.4, material=Material()), "color", "metallic")
    with pytest.warns(MeshWarning, match="color, metallic"):
        found = convert(mesh, 6, compat="trellis2").values
    assert bool((found["base_color"] == 1).all())
    assert bool((found["metallic"] == 1).all())


def test_a_bar_is_shown_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    mesh = painted(shapes.rotated(quad(0.33)))
    for backend in FAST:
        for compat in (None, "trellis2"):
            shown = convert(mesh, 12, progress=True, compat=compat, backend=backend)
            assert "materials" in capsys.readouterr().err
            assert torch.equal(joined(shown), joined(convert(mesh, 12, compat=compat, backend=backend)))
            assert capsys.readouterr().err == ""


def test_results_do_not_hang_on_the_number_of_threads() -> None:
    import numba

    mesh = painted(shapes.rotated(shapes.torus(around=20, across=10)))
    threads = numba.get_num_threads()
    results = []
    try:
        for count in (1, threads):
            numba.set_num_threads(count)
            results.append(joined(convert(mesh, 24, channels=tuple(CHANNELS), backend="numba")))
    finally:
        numba.set_num_threads(threads)
    assert torch.equal(results[0], results[1])


def test_rows_do_not_hang_on_the_order_of_the_faces() -> None:
    mesh = painted(shapes.rotated(shapes.torus(around=20, across=10)))
    order = torch.randperm(mesh.num_faces)
    shuffled = mesh.replace(faces=mesh.faces[order], face_material=mesh.face_material[order])  # pyright: ignore[reportOptionalSubscript]
    one, other = convert(mesh, 16), convert(shuffled, 16)
    assert torch.equal(one.cells, other.cells)
    assert float((joined(one) - joined(other)).abs().max()) < 1e-6


def test_a_frame_gives_the_arguments_of_the_grid() -> None:
    mesh = painted(shapes.rotated(quad(0.33)))
    moved = mesh.replace(vertices=mesh.vertices * 30 + torch.tensor([100.0, -50.0, 7.0]))
    frame = Frame.box((85.0, -65.0, -8.0), (115.0, -35.0, 22.0), 10)
    far = material_volume(moved, origin=frame.origin, voxel_size=frame.voxel_size, resolution=10)
    near = convert(mesh, 10)
    assert torch.equal(far.cells, near.cells)
    assert float((joined(far) - joined(near)).abs().max()) < 1e-3  # vertices are float32: 1e-5 voxel here
