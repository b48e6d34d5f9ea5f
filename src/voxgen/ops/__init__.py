"""Ops: functions on plain tensors, one folder each, several engines behind one name.

Import an op from its own folder (`from voxgen.ops.sample import sample_trilinear`); importing this package imports none.
"""
