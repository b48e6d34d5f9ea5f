"""Rectified flow: goldens of three systems' samplers, the path's algebra, orders of convergence, resuming, bad input."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from golden import recipe  # pyright: ignore[reportMissingImports] (pytest puts tests/ on the path)
from voxgen.core import SparseTensor, VoxelGrid
from voxgen.core.errors import DtypeError, RangeError, ShapeError
from voxgen.flow import (
    ClassifierFreeGuidance,
    EulerSampler,
    HeunSampler,
    LogitNormalTimes,
    MultistepSampler,
    RectifiedFlow,
    Sampler,
    SamplerState,
    UniformTimes,
    drop_condition,
    noise_like,
    sampling_times,
    shifted_times,
)
from voxgen.models.checkpoints import load_direct3d_s2
from voxgen.models.structure import StructureFlow
from voxgen.testing.grids import random_grid

FOLDER = Path(__file__).resolve().parents[1] / "golden"


def golden(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return json.loads((FOLDER / f"{name}.json").read_text()), {k: torch.from_numpy(arrays[k]) for k in arrays.files}


def tensor(name: str, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(np.asarray(recipe.normal(name, shape, 0), np.float32))


def close(found: Tensor, wanted: Tensor, tolerance: float) -> None:
    assert found.shape == wanted.shape
    assert float((found - wanted).abs().max()) <= tolerance * float(wanted.abs().max())


class Trellis2:
    facts, arrays = golden("trellis2_samplers")
    dense = (2, 3, 2, 2, 2)

    def __init__(self) -> None:
        self.calls: list[float] = []

    def velocity(self, x: Any, t: Tensor, condition: Tensor) -> Any:
        """v(x, t, c) = 0.3 x + 0.5 sin 2x + c t / 1000"""
        self.calls.append(float(t[0]))
        rows = x.feats if isinstance(x, SparseTensor) else x
        time = t[x.coords[:, 0].long()][:, None] if isinstance(x, SparseTensor) else t.reshape(-1, 1, 1, 1, 1)
        v = 0.3 * rows + 0.5 * torch.sin(2 * rows) + condition * time / 1000
        return x.with_feats(v) if isinstance(x, SparseTensor) else v


@pytest.mark.parametrize("preset", list(Trellis2.facts["presets"]))
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_sampler_of_trellis2(preset: str, kind: str) -> None:
    toy, options = Trellis2(), Trellis2.facts["presets"][preset]
    guidance = ClassifierFreeGuidance(options["guidance_strength"], tuple(options["guidance_interval"]), options["guidance_rescale"])
    sampler = EulerSampler(options["steps"], options["rescale_t"], guidance=guidance)
    assert sampler.time_grid() == pytest.approx(toy.facts["times"][preset], abs=1e-6)
    prefix = "" if kind == "dense" else "sparse_"
    shape = toy.dense if kind == "dense" else (11, 4)
    noise: Any = tensor(f"{prefix}noise", shape)
    if kind == "sparse":
        noise = SparseTensor.build(toy.arrays["coords"], noise, resolution=64)
        assert torch.equal(noise.coords, toy.arrays["coords"]), "the golden's tokens are in grid order"
    seen: list[SamplerState[Any]] = []
    conditions = (tensor(f"{prefix}positive", shape), tensor(f"{prefix}negative", shape))
    last = sampler(toy.velocity, noise, *conditions, callback=seen.append)
    for name, pick in (("x", lambda s: s.x), ("x0", lambda s: s.data)):
        found = torch.stack([pick(s).feats if kind == "sparse" else pick(s) for s in seen])
        close(found, toy.arrays[f"{preset}_{prefix}{name}"], 1e-4)
    assert torch.equal(last.feats if kind == "sparse" else last, seen[-1].x.feats if kind == "sparse" else seen[-1].x)
    assert toy.calls == pytest.approx([t for t, _ in toy.facts["model_calls_t_times_1000"][preset]], abs=1e-3)


def test_sampler_of_trellis2_without_guidance_and_with_constant_guidance() -> None:
    toy = Trellis2()
    noise, positive, negative = (tensor(n, toy.dense) for n in ("noise", "positive", "negative"))
    for name, guidance in (("plain", None), ("cfg", ClassifierFreeGuidance(4.0))):
        seen: list[Tensor] = []
        EulerSampler(12, 3.0, guidance=guidance)(toy.velocity, noise, positive, negative, callback=lambda s, seen=seen: seen.append(s.x))
        close(torch.stack(seen), toy.arrays[f"{name}_x"], 1e-4)


def test_path_of_trellis2() -> None:
    toy, flow = Trellis2(), RectifiedFlow()
    x = tensor("noise", toy.dense)
    for key, wanted in toy.facts["steps"].items():
        t = float(key.split("=")[1])
        time = torch.full((2,), t, dtype=torch.float64)
        v = tensor("positive", toy.dense)  # any number serves as a velocity
        data, noise = flow.data(x, v, time), flow.noise(x, v, time)
        assert data.flatten()[:4].tolist() == pytest.approx(wanted["x0"], abs=2e-5), key
        assert noise.flatten()[:4].tolist() == pytest.approx(wanted["eps"], abs=2e-5), key


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_sampler_of_direct3d_s2(precision: str) -> None:
    facts, arrays = golden("direct3d_s2_sampler")
    dtype = getattr(torch, precision)
    calls: list[float] = []

    def velocity(x: Tensor, t: Tensor, condition: Tensor) -> Tensor:
        calls.append(float(t.to(dtype)[0]))
        return torch.tanh(0.8 * x.float() + 0.002 * t.to(dtype).float() + condition.float()).to(dtype)

    sampler = EulerSampler(
        times=shifted_times(5, 6.0),
        flow=RectifiedFlow(sigma_min=0.0),
        guidance=ClassifierFreeGuidance(7.0, always_both=True),
        increment="network",
    )
    conditions = (torch.tensor(0.3, dtype=dtype), torch.tensor(0.0, dtype=dtype))
    latents = sampler(velocity, tensor("noise", (1, 2, 3, 3, 3)).to(dtype), *conditions) / 2 + 0.25
    wanted = arrays[f"out/latents_{precision}"]
    if dtype == torch.float16:
        assert torch.equal(latents.float(), wanted), "the order of rounding is that of the original"
    else:
        close(latents, wanted, 1e-5)
    assert calls[::2] == pytest.approx(arrays[f"out/network_times_{precision}"].tolist(), rel=1e-6)
    assert facts["tolerance"] == 1e-05


@pytest.mark.parametrize(("shift", "steps"), [(6, 50), (6, 30), (8, 15), (6, 5)])
def test_times_of_direct3d_s2(shift: int, steps: int) -> None:
    _, arrays = golden("direct3d_s2_sampler")
    times = shifted_times(steps, shift)
    assert times == pytest.approx(arrays[f"out/sigmas_shift{shift}_steps{steps}"].tolist(), abs=1e-7)
    network = RectifiedFlow().network_times(torch.tensor(times[:-1], dtype=torch.float64))
    torch.testing.assert_close(network, arrays[f"out/timesteps_shift{shift}_steps{steps}"], rtol=1e-6, atol=0)


@pytest.mark.parametrize("run", ["interval", "guided"])
def test_sampler_of_trellis(run: str) -> None:
    facts, arrays = golden("trellis_sampler")
    about, _ = golden("trellis_ss_flow")
    network = StructureFlow(**{k: v for k, v in facts["network"].items() if k != "use_fp16"})
    weights = {name: torch.from_numpy(recipe.weight(name, tuple(shape), facts["seed"])) for name, shape in about["tensors"]}
    load_direct3d_s2(network, weights)
    options = facts["runs"][run]
    w = options["cfg_strength"]
    guidance = ClassifierFreeGuidance(1 + w, tuple(options.get("cfg_interval", (0.0, 1.0))))
    sampler = EulerSampler(options["steps"], options["rescale_t"], guidance=guidance)
    noise, condition = tensor("noise", (2, 4, 8, 8, 8)), tensor("cond", (1, 11, 48)).expand(2, -1, -1)
    seen: list[SamplerState[Any]] = []
    found = sampler(network, noise, condition, torch.zeros_like(condition), callback=seen.append)
    close(found, arrays[f"samples_{run}"], 1e-3)
    for state, x, x0 in zip(seen, options["after_each_step"], options["x0_after_each_step"], strict=True):
        for tensors, wanted in ((state.x, x), (state.data, x0)):
            assert isinstance(tensors, Tensor)
            assert tensors.flatten()[:4].tolist() == pytest.approx(wanted["first"], abs=1e-3 * wanted["std"])


# --- properties -----------------------------------------------------------------------------------------------------


def batches() -> list[Any]:
    grid = random_grid((5, 0, 9), 8)
    return [torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0)), SparseTensor(grid, torch.linspace(-1, 1, 28).reshape(14, 2))]


def rows(x: Any) -> Tensor:
    return x.feats if isinstance(x, SparseTensor) else x


@pytest.mark.parametrize("x", batches(), ids=["dense", "sparse"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_path_there_and_back(x: Any, dtype: torch.dtype) -> None:
    flow = RectifiedFlow()
    x = x.to(dtype)
    noise = noise_like(x, torch.Generator().manual_seed(1))
    t = torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64)
    point, v = flow.noised(x, noise, t)
    for found, wanted in (
        (flow.data(point, v, t), x),
        (flow.noise(point, v, t), noise),
        (flow.velocity(point, x, t), v),
    ):
        assert rows(found).dtype == dtype
        torch.testing.assert_close(rows(found), rows(wanted), rtol=1e-5, atol=1e-5 if dtype == torch.float32 else 1e-12)


def test_the_ends_of_the_path() -> None:
    flow = RectifiedFlow(sigma_min=0.0)
    x, noise = torch.randn(2, 3), torch.randn(2, 3)
    assert torch.equal(flow.noised(x, noise, torch.zeros(2))[0], x)
    assert torch.equal(flow.noised(x, noise, torch.ones(2))[0], noise)


def test_loss_counts_values_and_knows_the_truth() -> None:
    flow = RectifiedFlow()
    x = batches()[1]
    noise = noise_like(x, torch.Generator().manual_seed(3))
    t = torch.tensor([0.2, 0.4, 0.9])
    _, v = flow.noised(x, noise, t)
    truth = flow.loss(lambda *_: v, x, times=t, noise=noise)
    assert float(truth.total) == 0
    assert torch.equal(truth.times, t)
    off = flow.loss(
        lambda *_: v.with_feats(v.feats + torch.cat((torch.full((5, 1), 1.0), torch.full((9, 1), 2.0)))), x, times=t, noise=noise
    )
    assert float(off.total) == pytest.approx((5 + 9 * 4) / 14, rel=1e-5), "the mean is over values, not over samples"
    assert off.per_sample[0] == pytest.approx(1.0, rel=1e-5)
    assert off.per_sample[2] == pytest.approx(4.0, rel=1e-5)
    assert math.isnan(off.per_sample[1]), "the empty sample has no error"


def test_loss_trains_a_network_to_generate() -> None:
    """Two points on a line: after a short training samples come out near one of them."""
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(2, 64), torch.nn.SiLU(), torch.nn.Linear(64, 64), torch.nn.SiLU(), torch.nn.Linear(64, 1))
    optimizer = torch.optim.AdamW(network.parameters(), 5e-3)
    flow, generator = RectifiedFlow(), torch.Generator().manual_seed(0)

    def velocity(x: Tensor, t: Tensor, _: None) -> Tensor:
        return network(torch.cat((x, t[:, None] / 1000), 1))

    for _ in range(400):
        data = torch.randint(0, 2, (256, 1), generator=generator).float() * 4 - 2
        loss = flow.loss(velocity, data, times=UniformTimes(), generator=generator)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    made = EulerSampler(50, flow=flow)(velocity, noise_like(torch.empty(500, 1), generator))
    near = ((made.abs() - 2).abs() < 0.5).float().mean()
    assert near > 0.9
    assert 0.3 < (made > 0).float().mean() < 0.7


@pytest.mark.parametrize(("sampler", "order"), [(EulerSampler, 1), (HeunSampler, 2), (MultistepSampler, 2)])
def test_order_of_convergence(sampler: type[Sampler], order: int) -> None:
    """x' = x + t from 1 to 0.2, which has a closed form; halving the steps' size divides the error by 2 to the order."""
    exact = -math.exp(0.2 - 1) * -(0.5 + 1 + 1) - 0.2 - 1

    def error(steps: int) -> float:
        times = [1 - 0.8 * (i / steps) ** 1.3 for i in range(steps + 1)]  # uneven
        found = sampler(times=times)(lambda x, t, c: x + t[:, None] / 1000, torch.tensor([[0.5]], dtype=torch.float64))
        return abs(float(found) - exact)

    found = math.log2(error(40) / error(80))
    assert found == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("sampler", [EulerSampler, HeunSampler, MultistepSampler])
@pytest.mark.parametrize("x", batches(), ids=["dense", "sparse"])
def test_an_interrupted_walk_goes_on_the_same(sampler: type[Sampler], x: Any, tmp_path: Path) -> None:
    def velocity(x: Any, t: Tensor, c: float) -> Any:
        v = torch.sin(rows(x) * 3) * c
        return x.with_feats(v) if isinstance(x, SparseTensor) else v

    walk = sampler(7, 3.0)
    whole = walk(velocity, x, 1.5)
    state = walk.start(x)
    for _ in range(3):
        state = walk.step(velocity, state, 1.5)
    values = {"x": rows(state.x), "velocity": None if state.velocity is None else rows(state.velocity)}
    torch.save({**values, "step": state.step, "times": state.times}, tmp_path / "state.pt")
    read = torch.load(tmp_path / "state.pt")

    def rebuilt(v: Tensor | None) -> Any:
        return None if v is None else x.with_feats(v) if isinstance(x, SparseTensor) else v

    state = SamplerState(rebuilt(read["x"]), read["step"], read["times"], velocity=rebuilt(read["velocity"]))
    assert torch.equal(rows(walk(velocity, state, 1.5)), rows(whole))


def test_a_sample_gets_the_same_noise_alone_and_in_a_batch() -> None:
    x = batches()[1]

    def chances(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(s) for s in seeds]

    together = noise_like(x, chances(1, 2, 3)).unbind()
    for i, alone in enumerate(x.unbind()):
        assert torch.equal(noise_like(alone, chances(i + 1)).feats, together[i].feats)
    dense = torch.empty(2, 3, 4)
    assert torch.equal(noise_like(dense, chances(5, 6))[1:], noise_like(dense[1:], chances(6)))
    assert noise_like(dense.half(), chances(5, 6)).dtype == torch.float16


def test_a_guided_sample_is_the_same_alone_and_in_a_batch() -> None:
    x = batches()[1]
    sampler = EulerSampler(4, guidance=ClassifierFreeGuidance(3.0, rescale=0.7))

    def velocity(x: SparseTensor, t: Tensor, c: float) -> SparseTensor:
        return x.with_feats(x.feats * c + 0.1)

    together = sampler(velocity, x, 1.0, 0.2)
    assert bool(torch.isfinite(together.feats).all()), "the empty sample has no deviation, which is nobody's business"
    for alone, found in zip(x.unbind(), together.unbind(), strict=True):
        torch.testing.assert_close(sampler(velocity, alone, 1.0, 0.2).feats, found.feats)


def test_times_to_train_at() -> None:
    generator = torch.Generator().manual_seed(0)
    uniform, normal = UniformTimes()(20_000, generator), LogitNormalTimes(1.0, 1.0)(20_000, generator)
    assert float(uniform.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(normal.median()) == pytest.approx(1 / (1 + math.exp(-1)), abs=0.01)
    assert float(torch.logit(normal).std()) == pytest.approx(1.0, abs=0.02)
    again = torch.Generator().manual_seed(7)
    assert torch.equal(UniformTimes()(3, torch.Generator().manual_seed(7)), UniformTimes()(3, again))


def test_times_to_sample_at() -> None:
    assert sampling_times(12, 5.0)[:4] == pytest.approx((1, 0.982143, 0.961538, 0.9375), abs=1e-6)
    assert sampling_times(12, 3.0)[8] == pytest.approx(0.6, abs=1e-15), "which the closed interval of the released pipelines counts in"
    assert ClassifierFreeGuidance(7.5, (0.6, 1.0)).counts_at(sampling_times(12, 3.0)[8])


def test_dropped_conditions() -> None:
    condition = torch.ones(20_000, 2, requires_grad=True)
    dropped = drop_condition(condition, 0.1, torch.Generator().manual_seed(0))
    assert float((dropped == 0).all(1).float().mean()) == pytest.approx(0.1, abs=0.01)
    assert bool(((dropped == 0).all(1) | (dropped == 1).all(1)).all()), "whole samples"
    assert torch.equal(drop_condition(condition, 0.0), condition)
    dropped.sum().backward()
    assert condition.grad is not None
    assert torch.equal(condition.grad, dropped.detach())


def test_half_batches_keep_their_dtype() -> None:
    x = batches()[0].half()
    out = EulerSampler(3, guidance=ClassifierFreeGuidance(2.0, rescale=0.5))(lambda x, t, c: x * c, x, 1.0, 0.5)
    assert out.dtype == torch.float16


def test_bad_input() -> None:
    x = torch.zeros(2, 3)
    grid = VoxelGrid.build(torch.tensor([[0, 1, 2, 3]], dtype=torch.int32), resolution=8)[0]
    sparse = SparseTensor(grid, torch.zeros(1, 3))
    flow = RectifiedFlow()
    with pytest.raises(RangeError, match="sigma_min"):
        RectifiedFlow(sigma_min=1.0)
    with pytest.raises(RangeError, match=r"t must lie in \[0, 1\]"):
        flow.noised(x, x, torch.tensor([0.5, 1.5]))
    with pytest.raises(ShapeError, match="t must"):
        flow.noised(x, x, torch.tensor([0.5]))
    with pytest.raises(ShapeError, match="one kind and shape"):
        flow.noised(x, sparse, torch.tensor([0.5, 0.5]))  # pyright: ignore[reportArgumentType]
    other = SparseTensor(VoxelGrid.build(torch.tensor([[0, 1, 2, 4]], dtype=torch.int32), resolution=8)[0], torch.zeros(1, 3))
    with pytest.raises(ShapeError, match="cells of the other"):
        flow.noised(sparse, other, torch.tensor([0.5]))
    with pytest.raises(DtypeError, match="float"):
        flow.noised(x.int(), x, torch.zeros(2))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ShapeError, match="model must give"):
        EulerSampler(2)(lambda x, t, c: x[:, :1], x)
    with pytest.raises(ShapeError, match="model must give"):
        flow.loss(lambda x, t, c: x[:, :1], x)
    with pytest.raises(RangeError, match="steps"):
        EulerSampler(0)
    with pytest.raises(RangeError, match="fall strictly"):
        EulerSampler(times=(1.0, 0.5, 0.5, 0.0))
    with pytest.raises(RangeError, match="interval"):
        ClassifierFreeGuidance(3.0, (1.0, 0.0))
    walk = EulerSampler(1)
    done = walk.step(lambda x, t, c: x, walk.start(x))
    with pytest.raises(RangeError, match="all 1 steps are done"):
        walk.step(lambda x, t, c: x, done)
    with pytest.raises(ShapeError, match="one for each of the 2 samples"):
        noise_like(x, [torch.Generator()])
    with pytest.raises(RangeError, match="rate"):
        drop_condition(x, 1.5)
