"""The case table that the code makes: the published one's digests, and what must hold for all 256 rows."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter

import numpy as np
import torch

from golden.reader import Golden  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.ops.cube_corners import STEPS
from voxgen.ops.flexicubes._table import (
    AROUND,
    CORNERS,
    EDGES,
    FACES,
    OWN_EDGES,
    ambiguous_faces,
    crossed,
    dual_vertices,
    face_step,
    problematic_face,
    table,
)


def test_is_the_published_table() -> None:
    golden = Golden.read("triposf_tables")
    facts = golden.about["facts"]
    rows = [[list(edges) for edges in dual_vertices(case)] for case in range(256)]

    def digest(cases: list[list[list[int]]]) -> str:
        return hashlib.sha256(json.dumps(cases, separators=(",", ":")).encode()).hexdigest()

    assert digest(rows) == facts["sha256_ordered"]
    assert digest([sorted(case) for case in rows]) == facts["sha256_unordered"]
    assert torch.equal(torch.from_numpy(table().counts).int(), golden.arrays["out/vertices_of_case"])
    problematic = [(case, *face_step(problematic_face(case)), 255 - case) for case in range(256) if problematic_face(case) >= 0]
    assert problematic == [tuple(row) for row in golden.arrays["out/problematic"].tolist()]


def test_arrays_say_what_the_functions_say() -> None:
    known = table()
    for case in range(256):
        vertices = dual_vertices(case)
        assert known.counts[case] == len(vertices)
        assert known.direction[case] == problematic_face(case)
        for e in range(12):
            owners = [j for j, edges in enumerate(vertices) if e in edges]
            assert owners == ([known.member[case, e]] if crossed(case, e) else [])
            assert [j for j in range(4) if known.groups[case, j] >> e & 1] == owners


def test_counts() -> None:
    sizes = [len(dual_vertices(case)) for case in range(256)]
    assert Counter(sizes) == {0: 2, 1: 162, 2: 82, 3: 8, 4: 2}
    assert [case for case in range(256) if sizes[case] == 4] == [105, 150]
    assert max(len(edges) for case in range(256) for edges in dual_vertices(case)) == 7
    assert min(len(edges) for case in range(1, 255) for edges in dual_vertices(case)) == 3
    assert Counter(len(ambiguous_faces(case)) for case in range(256)) == {0: 136, 1: 72, 2: 30, 3: 16, 6: 2}
    assert Counter(case.bit_count() for case in range(256) if problematic_face(case) >= 0) == {5: 24, 6: 12}


def test_vertices_of_every_case_are_pieces_of_one_closed_cut() -> None:
    """On each face the surface of a vertex enters as often as it leaves: every crossed edge has one partner in each of its two faces,
    and the piece of a vertex is closed under partners. On an ambiguous face the partners meet at an inside corner."""
    for case in range(256):
        owner = {e: j for j, edges in enumerate(dual_vertices(case)) for e in edges}
        assert set(owner) == {e for e in range(12) if crossed(case, e)}
        for face in FACES:
            here = [e for e in owner if set(EDGES[e]) <= set(face)]
            assert len(here) in (0, 2, 4)
            if len(here) == 2:
                assert owner[here[0]] == owner[here[1]]
            for corner in face if len(here) == 4 else ():
                meeting = [e for e in here if corner in EDGES[e]]
                if case >> corner & 1:
                    assert owner[meeting[0]] == owner[meeting[1]]


def test_turning_and_mirroring_the_cube_turns_the_table() -> None:
    for axes in itertools.permutations(range(3)):
        for flips in itertools.product((0, 1), repeat=3):
            corner = [CORNERS.index(_move(c, axes, flips)) for c in CORNERS]
            edge = [next(f for f, ends in enumerate(EDGES) if set(ends) == {corner[a], corner[b]}) for a, b in EDGES]
            for case in range(256):
                turned = sum(1 << corner[k] for k in range(8) if case >> k & 1)
                expected = {frozenset(edge[e] for e in edges) for edges in dual_vertices(case)}
                assert {frozenset(edges) for edges in dual_vertices(turned)} == expected
                face = problematic_face(case)
                other = problematic_face(turned)
                assert (face >= 0) == (other >= 0)
                if face >= 0:
                    assert {corner[k] for k in FACES[face]} == set(FACES[other])


def _move(corner: tuple[int, int, int], axes: tuple[int, ...], flips: tuple[int, ...]) -> tuple[int, int, int]:
    x, y, z = (corner[axis] ^ flip for axis, flip in zip(axes, flips, strict=True))
    return x, y, z


def test_replacement_keeps_the_crossed_edges_and_separates_the_face() -> None:
    for case in range(256):
        face = problematic_face(case)
        if face < 0:
            continue
        before, after = dual_vertices(case), dual_vertices(255 - case)
        assert len(before) == 1
        assert len(after) == 2
        assert sorted(e for edges in after for e in edges) == sorted(before[0])
        on_face = [e for e in range(12) if set(EDGES[e]) <= set(FACES[face])]
        assert all(sum(e in edges for e in on_face) == 2 for edges in after)
        # the cube across the face has the same corners there, and its only ambiguous face is this one if it is problematic too
        assert ambiguous_faces(case) == [face]


def test_no_pair_of_cubes_joins_two_vertices_by_four_quads() -> None:
    """All signs of two cubes with an ambiguous face between them: after the replacement one of them has two vertices there, and if
    both do, they divide the four edges alike. So a side of a quad, which stands for a face and a vertex in either cube, has
    at most two quads: this proves the guarantee for every field."""
    for axis in range(3):
        near, far = FACES[2 * axis + 1], FACES[2 * axis]
        across = {k: k ^ 1 << axis for k in near}
        edges = [e for e in range(12) if set(EDGES[e]) <= set(near)]
        partner = {e: next(f for f in range(12) if set(EDGES[f]) == {across[k] for k in EDGES[e]}) for e in edges}
        for first, rest in itertools.product(range(256), range(16)):
            if not all(crossed(first, e) for e in edges):
                continue
            second = sum(1 << across[k] for k in near if first >> k & 1) | sum(1 << k for i, k in enumerate(near) if rest >> i & 1)
            cases = (first, second)
            if problematic_face(first) == 2 * axis + 1 and problematic_face(second) == 2 * axis:
                cases = (255 - first, 255 - second)
            assert set(far) == {across[k] for k in near}
            one = {frozenset(set(edges) & set(group)) for group in dual_vertices(cases[0])} - {frozenset()}
            other = {frozenset(e for e in edges if partner[e] in group) for group in dual_vertices(cases[1])} - {frozenset()}
            assert len(one) + len(other) >= 3
            assert len(one) != len(other) or one == other


def test_cubes_around_an_edge_share_it() -> None:
    assert CORNERS == STEPS
    for axis in range(3):
        own = {tuple(np.array(CORNERS[k])) for k in EDGES[OWN_EDGES[axis]]}
        assert own == {(0, 0, 0), tuple(int(a == axis) for a in range(3))}
        assert list(AROUND[axis]) == sorted(AROUND[axis])
        for step, edge in AROUND[axis]:
            first, second = (tuple(int(v) for v in np.add(step, CORNERS[k])) for k in EDGES[edge])
            assert (first, second) == tuple(CORNERS[k] for k in EDGES[OWN_EDGES[axis]])  # the same end first, in all four
