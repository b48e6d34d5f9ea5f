"""Released networks of the dense stage and the refiners: every name, shape and dtype of the files, and strict loading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from models.direct3d_s2_golden import Golden, published_keys  # pyright: ignore[reportMissingImports]
from voxgen.core.errors import CheckpointError, DtypeError, FileFormatError, RangeError
from voxgen.models import available, build
from voxgen.models.checkpoints import load_direct3d_s2, to_direct3d_s2
from voxgen.testing.compare import assert_same

TOTALS = {
    "vae": (116, 37_874_113),
    "dense-vae": (212, 193_037_009),
    "dense-dit": (489, 559_737_864),
    "refiner": (253, 134_740_481),
    "refiner-1024": (234, 134_710_881),
}
GOLDENS = {"dense-vae": "dense_vae", "dense-dit": "dense_dit", "refiner": "refiner_512", "refiner-1024": "refiner_1024"}


@pytest.mark.parametrize("name", TOTALS)
def test_every_tensor_of_the_released_files(name: str) -> None:
    assert f"direct3d-s2/{name}" in available()
    module = build(f"direct3d-s2/{name}", device="meta")
    own = {key: (tuple(value.shape), value.dtype) for key, value in to_direct3d_s2(module).items()}
    assert own == published_keys(name)
    assert (len(own), sum(value.numel() for value in module.state_dict().values())) == TOTALS[name]


@pytest.mark.parametrize("name", GOLDENS)
def test_loading_is_strict_and_goes_both_ways(name: str, tmp_path: Path) -> None:
    golden = Golden.read(f"direct3d_s2_{GOLDENS[name]}")
    fields: dict[str, Any] = {**golden.configuration, "use_fp16": False}
    entry = {"dense-vae": "vae", "dense-dit": "dit"}.get(name, "refiner")
    first = build(f"direct3d-s2/{name}", **fields)
    load_direct3d_s2(first, golden.weights())
    state = to_direct3d_s2(first)

    # A file as it is published: several networks by entry, in half precision.
    path = tmp_path / "model.ckpt"
    torch.save({"other": {"x": torch.zeros(1)}, entry: {key: value.half() for key, value in state.items()}}, path)
    second = build(f"direct3d-s2/{name}", device="meta", **fields)
    load_direct3d_s2(second, path, device="cpu")
    for key, value in to_direct3d_s2(second).items():
        assert value.dtype == torch.float32
        assert_same(value, state[key].half().float(), key, 0)

    victim = next(iter(golden.weights()))
    short = {key: value for key, value in state.items() if key != victim}
    with pytest.raises(CheckpointError, match=rf"(?s)1 missing.*{victim}"):
        load_direct3d_s2(second, short)
    with pytest.raises(CheckpointError, match=r"(?s)1 left over.*stranger"):
        load_direct3d_s2(second, {**state, "stranger": torch.zeros(1)})
    with pytest.raises(CheckpointError, match="of another shape"):
        load_direct3d_s2(second, {**state, victim: state[victim][:1]})
    with pytest.raises(CheckpointError, match="nothing was loaded"):
        load_direct3d_s2(second, {"vae": {"x": torch.zeros(1)}, "dit": {"x": torch.zeros(1)}, "refiner": {"x": torch.zeros(1)}})


def test_files_and_modules_in_bad_form(tmp_path: Path) -> None:
    module = build("direct3d-s2/refiner", device="meta")
    with pytest.raises(FileNotFoundError):
        load_direct3d_s2(module, tmp_path / "missing.ckpt")
    (tmp_path / "broken.ckpt").write_bytes(b"not a checkpoint")
    with pytest.raises(FileFormatError, match="plain tensors"):
        load_direct3d_s2(module, tmp_path / "broken.ckpt")
    with pytest.raises(DtypeError, match="one of Direct3D-S2's"):
        load_direct3d_s2(torch.nn.Linear(1, 1), {})
    with pytest.raises(DtypeError, match="dict of tensors or a path"):
        load_direct3d_s2(module, 3)  # pyright: ignore[reportArgumentType]
    with pytest.raises(DtypeError, match="float"):
        to_direct3d_s2(module, torch.int8)
    with pytest.raises(RangeError, match="model_chanels"):
        build("direct3d-s2/dense-dit", device="meta", model_chanels=3)
