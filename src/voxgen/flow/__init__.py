"""Rectified flow: the path, times, guidance and samplers, for dense batches and sparse tensors alike."""

from ._batch import noise_like as noise_like
from .guidance import ClassifierFreeGuidance as ClassifierFreeGuidance
from .guidance import drop_condition as drop_condition
from .path import FlowLoss as FlowLoss
from .path import RectifiedFlow as RectifiedFlow
from .samplers import EulerSampler as EulerSampler
from .samplers import HeunSampler as HeunSampler
from .samplers import MultistepSampler as MultistepSampler
from .samplers import Sampler as Sampler
from .samplers import SamplerState as SamplerState
from .times import LogitNormalTimes as LogitNormalTimes
from .times import UniformTimes as UniformTimes
from .times import rescale_time as rescale_time
from .times import sampling_times as sampling_times
from .times import shifted_times as shifted_times

__all__ = [
    "ClassifierFreeGuidance",
    "EulerSampler",
    "FlowLoss",
    "HeunSampler",
    "LogitNormalTimes",
    "MultistepSampler",
    "RectifiedFlow",
    "Sampler",
    "SamplerState",
    "UniformTimes",
    "drop_condition",
    "noise_like",
    "rescale_time",
    "sampling_times",
    "shifted_times",
]
