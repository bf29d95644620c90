"""What NVIDIA's driver says of its GPUs, as JSON on stdout. A script of its own, run by `gpu.look`: a driver that is
broken may hang or end the process that asks it. Nothing but the standard library, and ctypes for the driver's own."""

from __future__ import annotations

import contextlib
import ctypes
import json
from typing import Any

CUDA, NVML = "libcuda.so.1", "libnvidia-ml.so.1"
UNCORRECTED, VOLATILE = 1, 0  # nvmlMemoryErrorType_t, nvmlEccCounterType_t: since the driver was loaded


def main() -> None:
    """Prints what CUDA's and NVML's libraries answer; codes are theirs: 0 is well, null a library that is missing."""
    print(json.dumps({**_cuda(), **_nvml()}))


def _cuda() -> dict[str, Any]:
    found: dict[str, Any] = {"cuda_code": None, "cuda_version": None, "num_devices": 0}
    library = _load(CUDA)
    if library is None:
        return found
    number = ctypes.c_int()
    found["cuda_code"] = library.cuInit(0)
    if library.cuDriverGetVersion(ctypes.byref(number)) == 0:
        found["cuda_version"] = [number.value // 1000, number.value % 1000 // 10]
    if found["cuda_code"] == 0 and library.cuDeviceGetCount(ctypes.byref(number)) == 0:
        found["num_devices"] = number.value
    return found


def _nvml() -> dict[str, Any]:
    found: dict[str, Any] = {"nvml_code": None, "driver": None, "gpus": []}
    library = _load(NVML)
    if library is None:
        return found
    found["nvml_code"] = library.nvmlInit_v2()
    if found["nvml_code"] == 0:
        text, count = ctypes.create_string_buffer(96), ctypes.c_uint()
        if library.nvmlSystemGetDriverVersion(text, 96) == 0:
            found["driver"] = text.value.decode(errors="replace")
        if library.nvmlDeviceGetCount_v2(ctypes.byref(count)) == 0:
            found["gpus"] = [_gpu(library, i) for i in range(count.value)]
    return found


def _gpu(library: Any, index: int) -> dict[str, Any]:
    """A GPU's name, its uncorrected memory errors, and NVML's code where it does not answer."""
    device, text, errors = ctypes.c_void_p(), ctypes.create_string_buffer(96), ctypes.c_ulonglong()
    code = library.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device))
    if code == 0:
        code = library.nvmlDeviceGetName(device, text, 96)
    gpu: dict[str, Any] = {"name": text.value.decode(errors="replace"), "code": code, "ecc_errors": None}
    if code == 0 and library.nvmlDeviceGetTotalEccErrors(device, UNCORRECTED, VOLATILE, ctypes.byref(errors)) == 0:
        gpu["ecc_errors"] = errors.value
    return gpu


def _load(name: str) -> Any:
    with contextlib.suppress(OSError):
        return ctypes.CDLL(name)
    return None


if __name__ == "__main__":
    main()
