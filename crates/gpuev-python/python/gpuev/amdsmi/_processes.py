"""Who uses the GPUs."""

from __future__ import annotations

from .._core import compute_processes
from ..errors import Error, NoGpuError
from ._exceptions import AmdSmiLibraryException, AmdSmiParameterException, AmdSmiRetCode
from ._session import all_gpus, check_initialized, library_exception, sensors_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Union

    from .._core import _ComputeProcess, processor_handle

_NOT_AVAILABLE = "N/A"


def _or_na(value: Union[int, str, None]) -> Union[int, str]:
    return _NOT_AVAILABLE if value is None else value


def _check_pid(pid: object) -> None:
    if not isinstance(pid, int) or isinstance(pid, bool):
        raise AmdSmiParameterException(pid, int)


_MOST_PROCESSES = 1024


def amdsmi_get_gpu_process_list(processor_handle: processor_handle) -> List[Dict[str, Any]]:
    """
    Get the processes that use a GPU.

    Parameters:
    - processor_handle: Handle for the target GPU device

    Returns:
    - List[dict]: Up to 1024, in order of pid, each with:
      - name (str): Name, or "N/A"
      - pid (int): Process id
      - mem (int): All its memory on this GPU, in bytes
      - engine_usage (dict): gfx (int), enc (int): time in nanoseconds that the engines were busy for it
      - memory_usage (dict): gtt_mem (int), cpu_mem (int), vram_mem (int) in bytes
      - cu_occupancy (int or "N/A"): Percent of the compute units that it keeps busy

    Raises:
    - AmdSmiParameterException: If processor_handle is not valid

    Note:
    - Other users' processes may not be looked into without privileges; of them there is what the compute
      driver tells everybody
    """
    processes = sensors_of(processor_handle).processes()
    return [
        {
            "name": _or_na(process["name"]),
            "pid": process["pid"],
            "mem": process["vram"] + process["gtt"] + process["cpu"],
            "engine_usage": {"gfx": process["gfx_ns"], "enc": process["enc_ns"]},
            "memory_usage": {
                "gtt_mem": process["gtt"],
                "cpu_mem": process["cpu"],
                "vram_mem": process["vram"],
            },
            "cu_occupancy": _or_na(process["compute_occupancy"]),
        }
        for process in processes[:_MOST_PROCESSES]
    ]


def amdsmi_get_gpu_compute_process_gpus(pid: int) -> List[int]:
    """Get the places in the list of handles of the GPUs that a process uses."""
    gpus = all_gpus()
    _check_pid(pid)
    used = [g.index for g in gpus if any(p["pid"] == pid for p in g.sensors.processes())]
    if not used:
        raise AmdSmiLibraryException(AmdSmiRetCode.NOT_FOUND)
    return used


def _compute_processes(pid: Optional[int] = None) -> List[_ComputeProcess]:
    try:
        return compute_processes(pid)
    except NoGpuError:
        return []
    except Error as error:
        raise library_exception(error) from error


def _use(process: _ComputeProcess) -> Dict[str, Union[int, str]]:
    busy, units = process["busy_compute_units"], process["compute_units"]
    return {
        "process_id": process["pid"],
        "vram_usage": _or_na(process["vram"]),
        "sdma_usage": _or_na(process["sdma_us"]),
        "cu_occupancy": _or_na(busy * 100 // units if busy is not None and units else None),
    }


def amdsmi_get_gpu_compute_process_info() -> List[Dict[str, Union[int, str]]]:
    """
    Get the compute processes, and what each uses of all GPUs.

    Returns:
    - list of dicts: process_id (int), vram_usage (bytes), sdma_usage (microseconds that its copy queues were busy),
      cu_occupancy (percent of the compute units that it keeps busy); "N/A" what the driver does not say
    """
    check_initialized()
    return [_use(process) for process in _compute_processes()]


def amdsmi_get_gpu_compute_process_info_by_pid(pid: int) -> Dict[str, Union[int, str]]:
    """
    Get what a compute process uses of all GPUs: the keys of `amdsmi_get_gpu_compute_process_info`.

    Raises:
    - AmdSmiParameterException: If pid is not an int
    - AmdSmiLibraryException: NOT_FOUND if it is no compute process
    """
    check_initialized()
    _check_pid(pid)
    found = _compute_processes(pid) if 0 < pid < 1 << 32 else []
    if not found:
        raise AmdSmiLibraryException(AmdSmiRetCode.NOT_FOUND)
    return _use(found[0])


__all__ = [
    "amdsmi_get_gpu_compute_process_gpus",
    "amdsmi_get_gpu_compute_process_info",
    "amdsmi_get_gpu_compute_process_info_by_pid",
    "amdsmi_get_gpu_process_list",
]
