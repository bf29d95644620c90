"""What training needs in memory: a formula before the weights are loaded, then a measured step, then a micro-batch."""

from runner.backends.local.memory.meter import PeakMeter, available_bytes, held_bytes
from runner.backends.local.memory.plan import MemoryPlan, halved, is_out_of_memory, plan_memory, probe
from runner.backends.local.memory.shape import MemoryParts, Shape, estimate, parts, shape_of

__all__ = [
    "MemoryParts",
    "MemoryPlan",
    "PeakMeter",
    "Shape",
    "available_bytes",
    "estimate",
    "halved",
    "held_bytes",
    "is_out_of_memory",
    "parts",
    "plan_memory",
    "probe",
    "shape_of",
]
