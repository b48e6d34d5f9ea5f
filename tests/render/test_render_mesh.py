"""Rendered images against what they must be: colours, light, transparency, textures, geometry."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from voxgen.core import Camera, Material, Texture, TriMesh
from voxgen.core.errors import DtypeError, MeshError, MeshWarning, RangeError, ShapeError
from voxgen.core.material import linear_to_srgb, srgb_to_linear
from voxgen.render import Lighting, apply_colormap, orbit_cameras, render_mesh, render_scalar
from voxgen.testing.shapes import sphere

QUAD = torch.tensor([[0, 1, 2], [0, 2, 3]])
BLACK, GREY = (0.0, 0.0, 0.0), (0.5, 0.25, 0.75)
NO_LIGHT = Lighting((), BLACK, BLACK)


def square(z: float = 0.0, half_x: float = 1.0, half_y: float = 1.0, **fields: object) -> TriMesh:
    """Two triangles that face +z, with uv over [0, 1]²."""
    corners = torch.tensor([[-half_x, -half_y, z], [half_x, -half_y, z], [half_x, half_y, z], [-half_x, half_y, z]])
    return TriMesh(corners, QUAD, uv=torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]])).replace(**fields)


def front(width: int = 8, height: int = 8, section: float = 2.0) -> Camera:
    """Parallel view along -z of the rectangle of height `section` about the origin."""
    return Camera.look_at(torch.tensor([[0.0, 0.0, 5.0]]), width=width, height=height, far=20.0, orthographic_height=section)


def show(mesh: TriMesh, shading="albedo", **options) -> Tensor:
    """(h, w, 3) of the front view."""
    return render_mesh(mesh, front(), **{"shading": shading, "background": GREY, **options}).color[0]


def color_of(image: Tensor, filter="linear") -> Material:
    return Material(base_color=Texture(image, (0, 1, 2), srgb=True, filter=filter))


def test_albedo_of_attributes_and_background_are_exact() -> None:
    mesh = square(half_x=0.5, attributes={"base_color": torch.tensor([[0.2, 0.4, 0.8]]).expand(4, 3)})
    out = render_mesh(mesh, front(), shading="albedo", background=GREY)
    inside = torch.zeros(8, 8, dtype=torch.bool)
    inside[:, 2:6] = True
    assert torch.equal(out.mask[0], inside.float())
    assert torch.allclose(out.color[0][inside], torch.tensor([0.2, 0.4, 0.8]), atol=1e-6)
    assert torch.allclose(out.color[0][~inside], torch.tensor(GREY), atol=1e-6)
    assert torch.equal(out.face_id[0] >= 0, inside)
    linear = render_mesh(mesh, front(), shading="albedo", background=GREY, encoding="linear")
    assert torch.allclose(linear_to_srgb(linear.color), out.color, atol=1e-6)
    assert (out.encoding, linear.encoding) == ("srgb", "linear")


@pytest.mark.parametrize("filter_", ["linear", "nearest"])
def test_texture_lies_upright_and_unmirrored(filter_: str) -> None:
    image = torch.randint(0, 256, (6, 8, 3), dtype=torch.uint8)
    mesh = square(half_x=4, half_y=3, materials=(color_of(image, filter=filter_),))
    found = render_mesh(mesh, front(8, 6, section=6.0), shading="albedo").color[0]
    assert torch.allclose(found, image / 255, atol=1e-5)  # centres of pixels on centres of texels


def test_wrap_uv_set_float_images_and_grey_channels() -> None:
    image = torch.rand(4, 4, 2)
    texture = Texture(image, (1, 1, 0), wrap=("mirror", "clamp"), uv_set=1)
    mesh = square(materials=(Material(base_color=texture),))
    mesh = mesh.replace(uv1=mesh.uv * 2, uv=None)  # pyright: ignore[reportOptionalOperand]
    found = show(mesh, encoding="linear")
    expected = torch.cat((image, image.flip(1)), 1)[..., [1, 1, 0]]
    assert torch.allclose(found[4:], expected, atol=1e-5)
    assert torch.allclose(found[0], expected[0], atol=1e-5)


def test_far_textures_are_read_from_reduced_levels() -> None:
    image = ((torch.arange(64)[:, None] + torch.arange(64)) % 2 * 255).to(torch.uint8)[..., None].expand(64, 64, 3)
    found = show(square(materials=(color_of(image),)))
    assert torch.allclose(found, linear_to_srgb(torch.tensor(0.5)), atol=0.01)  # the mean of light, not of bytes


def test_factors_multiply_textures_and_vertex_colors() -> None:
    grey = Texture(torch.full((1, 1, 3), 0.5), (0, 1, 2))
    material = Material(base_color_factor=(0.5, 1.0, 0.25), base_color=grey)
    mesh = square(materials=(material,), attributes={"color": torch.tensor([[1.0, 0.5, 1.0, 0.3]]).expand(4, 4)})
    assert torch.allclose(show(mesh, encoding="linear")[3, 3], torch.tensor([0.25, 0.25, 0.125]))
    replaced = mesh.replace(attributes={"base_color": torch.full((4, 3), 0.5)})
    assert torch.allclose(show(replaced, encoding="linear")[3, 3], srgb_to_linear(torch.tensor(0.5)).expand(3))


def test_each_face_gets_its_own_material() -> None:
    red, blue = Material(base_color_factor=(1, 0, 0)), Material(base_color_factor=(0, 0, 1))
    left, right = square(half_x=0.5), square(half_x=0.5)
    left = left.replace(vertices=left.vertices - torch.tensor([0.5, 0, 0]), materials=(red,))
    right = right.replace(vertices=right.vertices + torch.tensor([0.5, 0, 0]), materials=(blue,))
    both = TriMesh.concatenate([left, right])
    found = show(both, encoding="linear")
    assert torch.equal(found[:, :4], torch.tensor([1.0, 0, 0]).expand(8, 4, 3))
    assert torch.equal(found[:, 4:], torch.tensor([0.0, 0, 1]).expand(8, 4, 3))
    bare = both.replace(face_material=torch.tensor([0, 0, -1, -1]))
    assert torch.allclose(show(bare, encoding="linear")[:, 4:], torch.tensor(Material.plain().base_color_factor))


def glass(color: tuple[float, float, float], alpha: float) -> Material:
    return Material(base_color_factor=color, alpha_factor=alpha, alpha_mode="BLEND")


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_transparent_layers_mix_by_depth_whatever_their_order(order: tuple[int, ...]) -> None:
    parts = [
        square(0.5, materials=(glass((1, 0, 0), 0.5),)),
        square(0.0, materials=(glass((0, 1, 0), 0.25),)),
        square(-0.5, materials=(Material(base_color_factor=(0, 0, 1)),)),
    ]
    mesh = TriMesh.concatenate([parts[i] for i in order])
    assert torch.allclose(show(mesh, encoding="linear")[4, 4], torch.tensor([0.5, 0.125, 0.375]), atol=1e-6)
    assert torch.allclose(show(mesh, encoding="linear", layers=1)[4, 4], torch.tensor([0.5, 0.0, 0.5]), atol=1e-6)
    assert torch.allclose(show(mesh, encoding="linear", layers=0)[4, 4], torch.tensor([0.0, 0.0, 1.0]), atol=1e-6)
    alone = TriMesh.concatenate(parts[:2])
    out = render_mesh(alone, front(), shading="albedo", background=BLACK, encoding="linear")
    assert torch.allclose(out.color[0, 4, 4], torch.tensor([0.5, 0.125, 0.0]), atol=1e-6)
    assert float(out.mask[0, 4, 4]) == pytest.approx(1 - 0.5 * 0.75)
    hidden = TriMesh.concatenate([*parts[:2], square(0.7, materials=(Material(base_color_factor=(0, 0, 1)),))])
    assert torch.allclose(show(hidden, encoding="linear")[4, 4], torch.tensor([0.0, 0.0, 1.0]), atol=1e-6)


def test_alpha_of_textures_and_attributes() -> None:
    ramp = torch.linspace(0, 1, 8)[None, :, None].expand(8, 8, 1).contiguous()
    white = {"base_color_factor": (1.0, 1.0, 1.0), "alpha": Texture(ramp, (0,), wrap=("clamp", "clamp"))}
    options = {"background": BLACK, "encoding": "linear"}
    assert torch.allclose(show(square(materials=(Material(alpha_mode="BLEND", **white),)), **options)[..., :1], ramp, atol=1e-5)
    masked = show(square(materials=(Material(alpha_mode="MASK", alpha_cutoff=0.4, **white),)), **options)[..., :1]
    assert torch.equal(masked, (ramp >= 0.4).float())
    assert torch.equal(show(square(materials=(Material(**white),)), **options), torch.ones(8, 8, 3))
    vertex = square(materials=(glass((1, 1, 1), 0.9),), attributes={"alpha": torch.tensor([[0.0], [1], [1], [0]])})
    assert torch.allclose(show(vertex, **options)[3, :, 0], (torch.arange(8) + 0.5) / 8, atol=1e-5)
    cut = vertex.replace(materials=(Material(alpha_mode="MASK", alpha_cutoff=0.6),))
    assert show(cut, **options)[3, :, 0].tolist() == [0, 0, 0, 0, 0, 1, 1, 1]
    faint = square(materials=(glass((1, 1, 1), 1.0),), attributes={"color": torch.tensor([[1.0, 1, 1, 0.25]]).expand(4, 4)})
    assert torch.allclose(show(faint, **options), torch.tensor(0.25))
    bare = square(attributes={"alpha": torch.zeros(4, 1)})  # a face without material is opaque
    assert torch.allclose(show(bare, **options), torch.tensor(0.8))


def test_lambert_under_a_headlight_is_the_cosine_to_the_viewer() -> None:
    ball = sphere(0.9, 4).replace(materials=(Material(base_color_factor=(0.8, 0.6, 0.4), metallic_factor=0),))
    out = render_mesh(ball, front(32, 32), shading="lambert", lighting=Lighting.headlight(), encoding="linear", background=BLACK)
    cosine = out.normal[..., 2:].clamp(min=0)
    assert float(cosine.max()) > 0.99
    assert torch.allclose(out.color, cosine * torch.tensor([0.8, 0.6, 0.4]), atol=1e-5)


@pytest.mark.parametrize("up", ["y", "z"])
def test_sky_is_above_and_the_image_is_not_mirrored(up) -> None:
    ball = sphere(0.5, 3).replace(up=up)
    camera = orbit_cameras(1, points=ball.vertices, azimuth=0.0, elevation=0.0, up=up, width=24, height=24)
    sky = render_mesh(ball, camera, shading="lambert", lighting=Lighting((), (1, 1, 1), BLACK)).color[0, ..., 0]
    assert float(sky[3, 12]) > float(sky[12, 12]) > float(sky[20, 12])
    from_left = render_mesh(ball, camera, shading="pbr", lighting=Lighting((((-1.0, 0, 0), (1, 1, 1)),), BLACK, BLACK)).color[0, ..., 0]
    assert float(from_left[12, 4]) > 2 * float(from_left[12, 20])
    normal = render_mesh(ball, camera, shading="normal").color[0] * 2 - 1
    above, out = (
        (torch.tensor([0.0, 1, 0]), torch.tensor([0.0, 0, 1])) if up == "y" else (torch.tensor([0.0, 0, 1]), torch.tensor([0.0, -1, 0]))
    )
    assert float(normal[2, 12] @ above) > 0.6
    assert float(normal[12, 12] @ out) > 0.98
    assert float(normal[12, 21, 0]) > 0.7


def test_back_faces_are_lit_like_front_faces_unless_asked_otherwise() -> None:
    ball = sphere(0.8, 3)
    inside_out = ball.replace(faces=ball.faces.flip(1))
    a, b = render_mesh(ball, front(16, 16)), render_mesh(inside_out, front(16, 16))
    assert torch.allclose(a.color, b.color, atol=1e-5)
    assert torch.allclose(a.normal, b.normal, atol=1e-5)
    one_sided = render_mesh(inside_out, front(16, 16), two_sided=False)
    assert torch.allclose(one_sided.normal, -a.normal, atol=1e-5)
    flat = render_mesh(ball, front(16, 16), normals="flat").normal[0]
    seen = a.face_id[0] >= 0
    assert torch.allclose(flat[seen], ball.face_normals()[a.face_id[0][seen].long()], atol=1e-5)


def gltf_brdf(base: float, metallic: float, roughness: float, n: Tensor, v: Tensor, light: Tensor) -> float:
    """π · BRDF · cos, as appendix B of glTF 2.0 writes it, in plain numbers."""
    half = (v + light) / (v + light).norm()
    nl, nv, nh, vh = (float(a @ b) for a, b in ((n, light), (n, v), (n, half), (v, half)))
    a2 = roughness**4
    d = a2 / (math.pi * ((nh * nh) * (a2 - 1) + 1) ** 2)
    visible = 0.5 / (nl * math.sqrt(nv * nv * (1 - a2) + a2) + nv * math.sqrt(nl * nl * (1 - a2) + a2))
    specular, fresnel = visible * d, (1 - vh) ** 5
    metal = specular * (base + (1 - base) * fresnel)
    f = 0.04 + 0.96 * fresnel
    dielectric = (1 - f) * base / math.pi + f * specular
    return math.pi * nl * (metallic * metal + (1 - metallic) * dielectric)


@pytest.mark.parametrize(("metallic", "roughness"), [(0.0, 0.3), (0.0, 1.0), (1.0, 0.25), (1.0, 0.6)])
def test_pbr_is_the_model_of_gltf(metallic: float, roughness: float) -> None:
    mesh = square(materials=(Material(base_color_factor=(0.6, 0.6, 0.6), metallic_factor=metallic, roughness_factor=roughness),))
    direction = (0.3, -0.5, -0.9)
    out = render_mesh(mesh, front(), lighting=Lighting(((direction, (1, 1, 1)),), BLACK, BLACK), encoding="linear")
    light = torch.tensor([0.3, 0.5, 0.9], dtype=torch.float64)  # the same in world axes: y up, z to the viewer
    n = torch.tensor([0.0, 0, 1], dtype=torch.float64)
    assert float(out.color[0, 4, 4, 0]) == pytest.approx(gltf_brdf(0.6, metallic, roughness, n, n, light / light.norm()), rel=1e-4)


def test_surroundings_emission_and_occlusion() -> None:
    even = Lighting((), (1, 1, 1), (1, 1, 1))
    matt = Material(base_color_factor=(0.5, 0.5, 0.5), metallic_factor=0.0)
    furnace = show(square(materials=(matt,)), "pbr", lighting=even, encoding="linear")
    assert 0.5 < float(furnace[4, 4, 0]) < 0.56  # the base colour and 4 % of mirror
    mirror = show(square(materials=(Material(base_color_factor=(0.7, 0.7, 0.7)),)), "pbr", lighting=even, encoding="linear")
    assert float(mirror[4, 4, 0]) == pytest.approx(0.7, abs=1e-3)
    dark = Texture(torch.zeros(1, 1, 1), (0,))
    half_hidden = show(square(materials=(Material(occlusion=dark, occlusion_strength=0.5),)), "pbr", lighting=even, encoding="linear")
    assert float(half_hidden[4, 4, 0]) == pytest.approx(0.5, abs=1e-3)
    glow = Material(base_color_factor=BLACK, emissive_factor=(2.0, 0.5, 0.0))
    assert torch.allclose(show(square(materials=(glow,)), "pbr", lighting=NO_LIGHT, encoding="linear")[4, 4], torch.tensor([2.0, 0.5, 0.0]))
    bent = show(square(materials=(glow,)), "pbr", lighting=NO_LIGHT)[4, 4]
    assert 0.98 < float(bent[0]) < 1.0  # highlights are bent into the range
    assert float(bent[1]) == pytest.approx(float(linear_to_srgb(torch.tensor(0.5))), abs=1e-5)


@pytest.mark.parametrize("mirrored", [False, True])
def test_normal_textures_tilt_along_u_and_v(mirrored: bool) -> None:
    tilt = torch.tensor([0.5, 0.25, 0.8])
    tilt = tilt / tilt.norm()
    stored = Texture(((tilt + 1) / 2).reshape(1, 1, 3), (0, 1, 2))
    material = Material(base_color_factor=(1, 1, 1), metallic_factor=0.0, normal=stored)
    mesh = square(materials=(material,))
    if mirrored:
        mesh = mesh.replace(uv=mesh.uv * torch.tensor([-1.0, 1.0]))  # pyright: ignore[reportOptionalOperand]
    expected = tilt * torch.tensor([-1.0 if mirrored else 1.0, 1, 1])
    for axis, direction in enumerate(((1.0, 0, 0), (0, -1.0, 0), (0, 0, -1.0))):  # world x, y, z in camera axes
        lit = show(mesh, "lambert", lighting=Lighting(((direction, (1, 1, 1)),), BLACK, BLACK), encoding="linear")
        assert float(lit[4, 4, 0]) == pytest.approx(max(0.0, float(expected[axis])), abs=1e-5)
    smooth = show(mesh, "lambert", lighting=Lighting.headlight(), encoding="linear", normals="smooth")
    assert float(smooth[4, 4, 0]) == pytest.approx(1.0, abs=1e-5)


def test_supersampling_softens_borders_and_leaves_geometry_alone() -> None:
    mesh = square(half_x=0.625, half_y=0.5)  # two and a half pixels to each side
    fine, coarse = (render_mesh(mesh, front(), supersample=s, shading="albedo", background=BLACK, encoding="linear") for s in (4, 1))
    assert fine.mask[0, 4].tolist() == [0, 0.5, 1, 1, 1, 1, 0.5, 0]
    assert torch.allclose(fine.color[..., 0], fine.mask * 0.8, atol=1e-6)
    for name in ("depth", "normal", "face_id"):
        assert torch.equal(getattr(fine, name), getattr(coarse, name)), name


def test_depth_position_and_attributes_at_pixel_centres() -> None:
    mesh = square(z=0.5, half_x=0.5, attributes={"heat": torch.tensor([[0.0], [1], [1], [0]])})
    out = render_mesh(mesh, front(), attributes=("heat", "position", "uv"), shading="normal")
    inside = out.face_id[0] >= 0
    assert torch.allclose(out.depth[0][inside], torch.tensor(4.5))
    assert bool(torch.isinf(out.depth[0][~inside]).all())
    assert torch.allclose(out.attributes["heat"][0, 4, 2:6, 0], torch.tensor([0.125, 0.375, 0.625, 0.875]), atol=1e-6)
    assert torch.allclose(out.attributes["position"][0, 0, 2], torch.tensor([-0.375, 0.875, 0.5]), atol=1e-6)
    assert torch.allclose(out.attributes["uv"][0, 0, 2], torch.tensor([0.125, 0.9375]), atol=1e-6)
    assert float(out.attributes["heat"][0][~inside].abs().max()) == 0


def test_views_are_independent() -> None:
    mesh = sphere(0.4, 2)
    camera = orbit_cameras(3, points=mesh.vertices, width=20, height=16)
    together = render_mesh(mesh, camera, supersample=2)
    for i in range(3):
        alone = render_mesh(mesh, camera[i], supersample=2)
        for name in ("color", "mask", "depth", "normal", "face_id"):
            assert torch.equal(getattr(together, name)[i : i + 1], getattr(alone, name)), name


def test_gradients_reach_vertices_and_attributes() -> None:
    torch.manual_seed(2)
    vertices = torch.tensor(
        [[-2.0, -2.1, 0.1], [2.2, -1.9, -0.3], [1.8, 2.3, 0.2], [-1.7, 2.2, -0.1]], dtype=torch.float64, requires_grad=True
    )
    color = torch.rand(4, 3, dtype=torch.float64, requires_grad=True)
    camera = Camera.look_at(torch.tensor([[0.1, 0.2, 3.0]]).double(), width=2, height=2, fov=50.0)
    metal = Material(base_color_factor=(0.9, 0.8, 0.7), metallic_factor=0.5, roughness_factor=0.6)

    def run(v: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        out = render_mesh(TriMesh(v, QUAD, attributes={"color": c}, materials=(metal,)), camera, encoding="linear")
        return out.color, out.depth, out.normal

    assert int(render_mesh(TriMesh(vertices.detach(), QUAD), camera).face_id.min()) >= 0  # outlines have no gradient
    assert torch.autograd.gradcheck(run, (vertices, color), eps=1e-6, atol=1e-5)


def test_scalar_on_vertices_and_faces() -> None:
    mesh = square(half_x=0.5, materials=(glass((1, 1, 1), 0.2),))
    values = torch.tensor([0.0, 1.0, 1.0, 0.0])
    found = render_scalar(mesh, front(), values, colormap="sea", relief=0.0).color[0, 4, 2:6]
    assert torch.allclose(found, apply_colormap(torch.tensor([0.125, 0.375, 0.625, 0.875]), 0.0, 1.0, "sea"), atol=1e-5)
    faces = render_scalar(mesh, front(), torch.tensor([torch.nan, 3.0]), low=1.0, high=5.0, relief=0.0)
    ids = faces.face_id[0]
    expected = apply_colormap(torch.tensor([torch.nan, 3.0]), 1.0, 5.0)
    assert torch.allclose(faces.color[0][ids >= 0], expected[ids[ids >= 0].long()], atol=1e-5)
    ball = sphere(0.9, 3)
    relief = render_scalar(ball, front(32, 32), torch.ones(ball.num_vertices), low=0.0, high=2.0, relief=0.5)
    cosine = relief.normal[..., 2:].clamp(min=0)
    expected = srgb_to_linear(apply_colormap(torch.tensor(1.0), 0.0, 2.0)) * (0.5 + 0.5 * cosine)
    seen = relief.face_id >= 0
    assert torch.allclose(srgb_to_linear(relief.color)[seen], expected[seen], atol=1e-4)


def test_empty_mesh_and_nothing_in_view() -> None:
    nothing = TriMesh(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.int32))
    away = square().replace(vertices=square().vertices + 100)
    for mesh in (nothing, away):
        for supersample in (1, 2):
            out = render_mesh(mesh, front(), supersample=supersample, background=GREY)
            assert torch.allclose(out.color, torch.tensor(GREY), atol=1e-6)
            assert float(out.mask.max()) == 0
            assert int(out.face_id.max()) == -1
    assert torch.allclose(render_scalar(nothing, front(), torch.zeros(0), background=GREY).color, torch.tensor(GREY), atol=1e-6)


def test_textures_without_coordinates_warn() -> None:
    mesh = square(materials=(color_of(torch.full((2, 2, 3), 128, dtype=torch.uint8)),)).replace(uv=None)
    with pytest.warns(MeshWarning, match="has no uv"):
        found = show(mesh)
    assert torch.allclose(found, torch.tensor(128 / 255), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"shading": "toon"}, RangeError, "shading must be one of 'pbr'"),
        ({"normals": "bumpy"}, RangeError, "normals must be one of"),
        ({"encoding": "rec709"}, RangeError, "encoding must be one of"),
        ({"supersample": 0}, RangeError, "supersample must be from 1 to 16"),
        ({"supersample": 1.5}, DtypeError, "supersample"),
        ({"layers": -1}, RangeError, "layers"),
        ({"background": (0, 0, 2)}, RangeError, "background"),
        ({"attributes": ("heat",)}, RangeError, "attributes must be one of 'position', 'uv'"),
    ],
)
def test_bad_options(options: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        render_mesh(square(), front(), **options)  # pyright: ignore[reportArgumentType]


def test_bad_meshes_lights_and_values() -> None:
    with pytest.raises(MeshError, match="render_mesh: faces must index 4 vertices"):
        render_mesh(square(faces=QUAD + 2), front())
    with pytest.raises(MeshError, match="render_mesh: vertices must be finite"):
        render_mesh(square(vertices=square().vertices / 0), front())
    with pytest.raises(ShapeError, match=r"attributes\['metallic'\] must have 1 columns"):
        render_mesh(square(attributes={"metallic": torch.zeros(4, 2)}), front())
    with pytest.raises(DtypeError, match="Divide bytes by 255"):
        render_mesh(square(attributes={"base_color": torch.zeros(4, 3, dtype=torch.uint8)}), front())
    with pytest.raises(RangeError, match="direction must have a length"):
        Lighting(((BLACK, (1, 1, 1)),))
    with pytest.raises(RangeError, match="sky must be three finite numbers"):
        Lighting(sky=(0, -1, 0))
    with pytest.raises(ShapeError, match="4 vertices or 2 faces; got 3"):
        render_scalar(square(), front(), torch.zeros(3))
    with pytest.raises(DtypeError, match="values must be float"):
        render_scalar(square(), front(), torch.zeros(4).int())
    with pytest.raises(RangeError, match="low must be below high"):
        render_scalar(square(), front(), torch.zeros(4), low=1.0, high=0.0)
    with pytest.raises(RangeError, match=r"relief must lie in \[0, 1\]"):
        render_scalar(square(), front(), torch.zeros(4), relief=2.0)
