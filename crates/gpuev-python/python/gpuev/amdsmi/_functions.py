"""Discovery, sensors, memory and errors in the documented API's keys and units.

Of a GPU that is gone, all that would ask it raise `AmdSmiLibraryException` with code 31.
"""

from __future__ import annotations

from .._core import processor_handle
from ._exceptions import (
    AmdSmiBdfFormatException,
    AmdSmiLibraryException,
    AmdSmiParameterException,
    AmdSmiRetCode,
)
from . import _units
from ._session import all_gpus, check_initialized, gpu_of, not_supported, sensors_of
from ._types import (
    AmdSmiClkType,
    AmdSmiGpuBlock,
    AmdSmiMemoryType,
    AmdSmiTemperatureMetric,
    AmdSmiTemperatureType,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Type, Union

_NOT_AVAILABLE = "N/A"
_MEBIBYTE = 1 << 20


def _or_not_available(value: Union[int, str, None]) -> Union[int, str]:
    return _NOT_AVAILABLE if value is None else value


def _check(value: object, kind: Type[Any]) -> None:
    if not isinstance(value, kind):
        raise AmdSmiParameterException(value, kind)


def amdsmi_get_processor_handles() -> List[processor_handle]:
    """
    Get a list of all processor handles in the system.

    Returns:
    - List[processor_handle]: One for each GPU, or each partition of a GPU, in order of PCI address and
      partition. Empty if there are none.

    Raises:
    - AmdSmiLibraryException: If the library is not initialized or discovery fails
    """
    return [processor_handle.of(gpu) for gpu in all_gpus()]


def amdsmi_get_socket_handles() -> List[processor_handle]:
    """
    Get a list of all socket handles in the system.

    Returns:
    - List[processor_handle]: One for each GPU, whatever its partitions: the handle of the first of them

    Raises:
    - AmdSmiLibraryException: If the library is not initialized or discovery fails
    """
    seen = set()
    sockets = []
    for gpu in all_gpus():
        if gpu.bdf not in seen:
            seen.add(gpu.bdf)
            sockets.append(processor_handle.of(gpu))
    return sockets


def amdsmi_get_processor_type(processor_handle: processor_handle) -> Dict[str, str]:
    """
    Get the type of a processor.

    Parameters:
    - processor_handle: Handle for the target device

    Returns:
    - dict: processor_type (str): "AMDSMI_PROCESSOR_TYPE_AMD_GPU"

    Raises:
    - AmdSmiParameterException: If processor_handle is not valid
    """
    gpu_of(processor_handle)
    return {"processor_type": "AMDSMI_PROCESSOR_TYPE_AMD_GPU"}


def amdsmi_get_processor_handle_from_bdf(bdf: str) -> processor_handle:
    """
    Get the handle of the GPU at a PCI address.

    Parameters:
    - bdf (str): "<domain>:<bus>:<device>.<function>" or "<bus>:<device>.<function>" in hex. Of a
      partitioned GPU, the first partition is given.

    Raises:
    - AmdSmiBdfFormatException: If bdf is not a PCI address
    - AmdSmiLibraryException: Code 31 if there is no GPU at this address
    """
    check_initialized()
    _check(bdf, str)
    wanted = _normal_bdf(bdf)
    for gpu in all_gpus():
        if gpu.bdf == wanted:
            return processor_handle.of(gpu)
    raise AmdSmiLibraryException(AmdSmiRetCode.NOT_FOUND)


def _normal_bdf(bdf: str) -> str:
    parts = bdf.replace(".", ":").split(":")
    if len(parts) == 3:
        parts.insert(0, "0000")
    lengths = [len(part) for part in parts]
    hexadecimal = all(c in "0123456789abcdefABCDEF" for part in parts for c in part)
    dotted = bdf.count(".") == 1 and bdf.rfind(".") > bdf.rfind(":")
    if not hexadecimal or not dotted or lengths != [4, 2, 2, 1]:
        raise AmdSmiBdfFormatException(bdf)
    domain, bus, device, function = (int(part, 16) for part in parts)
    if device > 0x1F or function > 7:
        raise AmdSmiBdfFormatException(bdf)
    return f"{domain:04x}:{bus:02x}:{device:02x}.{function:x}"


def amdsmi_get_gpu_device_bdf(processor_handle: processor_handle) -> str:
    """
    Get the PCI address of a GPU.

    Parameters:
    - processor_handle: Handle for the target GPU device

    Returns:
    - str: "0000:03:00.0"

    Raises:
    - AmdSmiParameterException: If processor_handle is not valid
    """
    return gpu_of(processor_handle).bdf


def amdsmi_get_gpu_device_uuid(processor_handle: processor_handle) -> str:
    """
    Get the UUID of a GPU: made of its device id and its unique id, the same in every slot and machine.

    Of a GPU without a unique id (most APUs and older cards) it is made of 0, as the vendor's library does: two such
    GPUs of one kind have the same.

    Parameters:
    - processor_handle: Handle for the target GPU device

    Raises:
    - AmdSmiParameterException: If processor_handle is not valid
    - AmdSmiLibraryException: NOT_SUPPORTED if the GPU's device id is not known
    """
    gpu = gpu_of(processor_handle)
    device = sensors_of(processor_handle).pci_ids()["device"]
    if device is None:
        raise not_supported()
    serial = int(gpu.unique_id or "0", 16)
    # As the vendor's library: 0xff stands where a partition has its number.
    place = gpu.partition if gpu.partitions > 1 else 0xFF
    first = (serial >> 56) << 24 | place << 16 | device & 0xFFFF
    fourth = 0x80 << 8 | serial >> 48 & 0xFF
    return f"{first:08x}-0000-1000-{fourth:04x}-{serial & 0xFFFFFFFFFFFF:012x}"


def amdsmi_get_gpu_kfd_info(processor_handle: processor_handle) -> Dict[str, int]:
    """
    Get what the compute driver calls a GPU.

    Parameters:
    - processor_handle: Handle for the target GPU device

    Returns:
    - dict: kfd_id (int), node_id (int), current_partition_id (int)

    Raises:
    - AmdSmiParameterException: If processor_handle is not valid
    """
    gpu = gpu_of(processor_handle)
    return {
        "kfd_id": gpu.kfd_id,
        "node_id": gpu.kfd_node,
        "current_partition_id": gpu.partition,
    }


def amdsmi_get_gpu_asic_info(processor_handle: processor_handle) -> Dict[str, Union[int, str]]:
    """
    Get what kind of GPU it is.

    Parameters:
    - processor_handle: Handle for the target GPU device

    Returns:
    - dict: market_name, vendor_id ("0x1002"), vendor_name, subvendor_id, device_id, rev_id, asic_serial (str),
      oam_id, num_compute_units (int), target_graphics_version ("gfx942"), subsystem_id; "N/A" what is not
      known

    Raises:
    - AmdSmiParameterException: If processor_handle is not valid
    """
    gpu = gpu_of(processor_handle)
    pci = sensors_of(processor_handle).pci_ids()

    def in_hex(number: Optional[int], digits: int = 4) -> str:
        return _NOT_AVAILABLE if number is None else f"0x{number:0{digits}x}"

    vendor = "Advanced Micro Devices Inc. [AMD/ATI]" if pci["vendor"] == 0x1002 else _NOT_AVAILABLE
    return {
        "market_name": gpu.name or _NOT_AVAILABLE,
        "vendor_id": in_hex(pci["vendor"]),
        "vendor_name": vendor,
        "subvendor_id": in_hex(pci["subsystem_vendor"]),
        "device_id": in_hex(pci["device"]),
        "rev_id": in_hex(pci["revision"], 2),
        "asic_serial": _NOT_AVAILABLE if gpu.unique_id is None else f"0x{gpu.unique_id.upper()}",
        "oam_id": _NOT_AVAILABLE,
        "num_compute_units": _or_not_available(gpu.compute_units),
        "target_graphics_version": _or_not_available(gpu.gfx_target),
        "subsystem_id": in_hex(pci["subsystem_device"]),
    }


def amdsmi_get_temp_metric(
    processor_handle: processor_handle,
    sensor_type: AmdSmiTemperatureType,
    metric: AmdSmiTemperatureMetric,
) -> int:
    """
    Get a temperature of a GPU.

    Parameters:
    - processor_handle: Handle for the target GPU device
    - sensor_type (AmdSmiTemperatureType): Where it is measured
    - metric (AmdSmiTemperatureMetric): What of it

    Returns:
    - int: Millidegrees Celsius; degrees Celsius where the vendor's units were chosen

    Raises:
    - AmdSmiParameterException: If a parameter is not valid
    - AmdSmiLibraryException: NOT_SUPPORTED if the GPU does not have it
    """
    sensors = sensors_of(processor_handle)
    _check(sensor_type, AmdSmiTemperatureType)
    _check(metric, AmdSmiTemperatureMetric)
    temperature = sensors.temperature(sensor_type, metric)
    if temperature is None:
        raise not_supported()
    return _units.temperature(temperature)


def amdsmi_get_power_info(processor_handle: processor_handle) -> Dict[str, Union[int, str]]:
    """
    Get power and voltages of a GPU.

    Parameters:
    - processor_handle: Handle for the target GPU device

    Returns:
    - dict: socket_power, current_socket_power, average_socket_power in microwatts, or in watts where the vendor's
      units were chosen; power_limit in microwatts always; gfx_voltage, soc_voltage, mem_voltage in millivolts; "N/A"
      what the GPU does not tell. socket_power is the current power, else the average.

    Raises:
    - AmdSmiParameterException: If processor_handle is not valid
    """
    sensors = sensors_of(processor_handle)
    power = sensors.power()
    voltages = sensors.voltages()
    current, average = (
        None if value is None else _units.power(value) for value in (power["current"], power["average"])
    )
    return {
        "socket_power": _or_not_available(average if current is None else current),
        "current_socket_power": _or_not_available(current),
        "average_socket_power": _or_not_available(average),
        "gfx_voltage": _or_not_available(voltages["gfx"]),
        "soc_voltage": _or_not_available(voltages["soc"]),
        "mem_voltage": _or_not_available(voltages["memory"]),
        "power_limit": _or_not_available(power["cap"]),
    }


def amdsmi_get_power_cap_info(
    processor_handle: processor_handle, sensor_ind: int = 0
) -> Dict[str, Union[int, str]]:
    """
    Get the power limits of a GPU.

    Parameters:
    - processor_handle: Handle for the target GPU device
    - sensor_ind (int): 0, the whole package

    Returns:
    - dict: power_cap, default_power_cap, min_power_cap, max_power_cap in microwatts, dpm_cap; "N/A" what the
      GPU does not tell

    Raises:
    - AmdSmiParameterException: If a parameter is not valid
    - AmdSmiLibraryException: NOT_SUPPORTED if the GPU has no limits
    """
    sensors = sensors_of(processor_handle)
    if isinstance(sensor_ind, bool) or not isinstance(sensor_ind, int):
        raise AmdSmiParameterException(sensor_ind, int)
    power = sensors.power()
    if sensor_ind != 0 or power["cap"] is None and power["cap_max"] is None:
        raise not_supported()
    return {
        "power_cap": _or_not_available(power["cap"]),
        "default_power_cap": _or_not_available(power["cap_default"]),
        "dpm_cap": _NOT_AVAILABLE,
        "min_power_cap": _or_not_available(power["cap_min"]),
        "max_power_cap": _or_not_available(power["cap_max"]),
    }


def amdsmi_get_gpu_activity(processor_handle: processor_handle) -> Dict[str, Union[int, str]]:
    """
    Get how busy a GPU is.

    Parameters:
    - processor_handle: Handle for the target GPU device

    Returns:
    - dict: gfx_activity, umc_activity, mm_activity (int): percent, 0 to 100, or "N/A"

    Raises:
    - AmdSmiParameterException: If processor_handle is not valid
    """
    activity = sensors_of(processor_handle).activity()
    return {
        "gfx_activity": _or_not_available(activity["gfx"]),
        "umc_activity": _or_not_available(activity["memory"]),
        "mm_activity": _or_not_available(activity["media"]),
    }


def amdsmi_get_clock_info(
    processor_handle: processor_handle, clock_type: AmdSmiClkType
) -> Dict[str, Union[int, str]]:
    """
    Get a clock of a GPU.

    Parameters:
    - processor_handle: Handle for the target GPU device
    - clock_type (AmdSmiClkType): Which clock

    Returns:
    - dict: clk, min_clk, max_clk in MHz; clk_locked, clk_deep_sleep; "N/A" what the GPU does not tell

    Raises:
    - AmdSmiParameterException: If a parameter is not valid
    - AmdSmiLibraryException: NOT_SUPPORTED if the GPU does not tell of this clock
    """
    sensors = sensors_of(processor_handle)
    _check(clock_type, AmdSmiClkType)
    clock = sensors.clock(clock_type)
    if clock is None:
        raise not_supported()
    return {
        "clk": _or_not_available(clock["current"]),
        "min_clk": _or_not_available(clock["min"]),
        "max_clk": _or_not_available(clock["max"]),
        "clk_locked": _NOT_AVAILABLE,
        "clk_deep_sleep": _NOT_AVAILABLE,
    }


def amdsmi_get_gpu_vram_usage(processor_handle: processor_handle) -> Dict[str, int]:
    """
    Get how much of its own memory a GPU has, and how much is used.

    Parameters:
    - processor_handle: Handle for the target GPU device

    Returns:
    - dict: vram_total (int), vram_used (int) in megabytes (1024 * 1024 bytes); of a partition its own, of which
      what its compute processes hold counts as used: the driver counts no more

    Raises:
    - AmdSmiParameterException: If processor_handle is not valid
    - AmdSmiLibraryException: NOT_SUPPORTED if the GPU does not tell
    """
    total = sensors_of(processor_handle).memory()["vram_total"]
    used = _vram_used(processor_handle)
    if total is None or used is None:
        raise not_supported()
    return {"vram_total": total // _MEBIBYTE, "vram_used": used // _MEBIBYTE}


def _vram_used(handle: processor_handle) -> Optional[int]:
    sensors = sensors_of(handle)
    used = sensors.memory()["vram_used"]
    if used is None and gpu_of(handle).compute_partition not in (None, "SPX"):
        return sum(process["vram"] or 0 for process in sensors.processes())
    return used


def amdsmi_get_gpu_memory_total(
    processor_handle: processor_handle, mem_type: AmdSmiMemoryType
) -> int:
    """
    Get how much of a memory there is.

    Parameters:
    - processor_handle: Handle for the target GPU device
    - mem_type (AmdSmiMemoryType): Which memory

    Returns:
    - int: Bytes

    Raises:
    - AmdSmiParameterException: If a parameter is not valid
    - AmdSmiLibraryException: NOT_SUPPORTED if the GPU does not tell
    """
    return _memory(processor_handle, mem_type, "total")


def amdsmi_get_gpu_memory_usage(
    processor_handle: processor_handle, mem_type: AmdSmiMemoryType
) -> int:
    """
    Get how much of a memory is used.

    Parameters:
    - processor_handle: Handle for the target GPU device
    - mem_type (AmdSmiMemoryType): Which memory

    Returns:
    - int: Bytes

    Raises:
    - AmdSmiParameterException: If a parameter is not valid
    - AmdSmiLibraryException: NOT_SUPPORTED if the GPU does not tell
    """
    return _memory(processor_handle, mem_type, "used")


def _memory(handle: processor_handle, mem_type: AmdSmiMemoryType, what: str) -> int:
    sensors = sensors_of(handle)
    _check(mem_type, AmdSmiMemoryType)
    name = ("vram", "visible_vram", "gtt")[mem_type]
    amount: Optional[int] = sensors.memory()[f"{name}_{what}"]  # type: ignore[literal-required]
    if (name, what) == ("vram", "used"):
        amount = _vram_used(handle)
    if amount is None:
        raise not_supported()
    return amount


def amdsmi_get_gpu_total_ecc_count(processor_handle: processor_handle) -> Dict[str, int]:
    """
    Get how many errors all blocks of a GPU counted since the driver was loaded.

    Parameters:
    - processor_handle: Handle for the target GPU device

    Returns:
    - dict: correctable_count (int), uncorrectable_count (int), deferred_count (int)

    Raises:
    - AmdSmiParameterException: If processor_handle is not valid
    - AmdSmiLibraryException: NOT_SUPPORTED if the GPU does not count
    """
    blocks = sensors_of(processor_handle).ras()
    if not blocks:
        raise not_supported()
    return {
        "correctable_count": sum(block["correctable"] or 0 for block in blocks),
        "uncorrectable_count": sum(block["uncorrectable"] or 0 for block in blocks),
        "deferred_count": sum(block["deferred"] or 0 for block in blocks),
    }


def amdsmi_get_gpu_ecc_count(
    processor_handle: processor_handle, block: AmdSmiGpuBlock
) -> Dict[str, int]:
    """
    Get how many errors one block of a GPU counted since the driver was loaded.

    Parameters:
    - processor_handle: Handle for the target GPU device
    - block (AmdSmiGpuBlock): Which block

    Returns:
    - dict: correctable_count (int), uncorrectable_count (int), deferred_count (int)

    Raises:
    - AmdSmiParameterException: If a parameter is not valid
    - AmdSmiLibraryException: NOT_SUPPORTED if the block does not count, BUSY while the GPU is reset
    """
    sensors = sensors_of(processor_handle)
    _check(block, AmdSmiGpuBlock)
    blocks = sensors.ras(block.name.lower())
    if not blocks:
        raise not_supported()
    [found] = blocks
    if found["correctable"] is None or found["uncorrectable"] is None:
        raise AmdSmiLibraryException(AmdSmiRetCode.BUSY)
    return {
        "correctable_count": found["correctable"],
        "uncorrectable_count": found["uncorrectable"],
        "deferred_count": found["deferred"] or 0,
    }


__all__ = [
    "amdsmi_get_clock_info",
    "amdsmi_get_gpu_activity",
    "amdsmi_get_gpu_asic_info",
    "amdsmi_get_gpu_device_bdf",
    "amdsmi_get_gpu_device_uuid",
    "amdsmi_get_gpu_ecc_count",
    "amdsmi_get_gpu_kfd_info",
    "amdsmi_get_gpu_memory_total",
    "amdsmi_get_gpu_memory_usage",
    "amdsmi_get_gpu_total_ecc_count",
    "amdsmi_get_gpu_vram_usage",
    "amdsmi_get_power_cap_info",
    "amdsmi_get_power_info",
    "amdsmi_get_processor_handle_from_bdf",
    "amdsmi_get_processor_handles",
    "amdsmi_get_processor_type",
    "amdsmi_get_socket_handles",
    "amdsmi_get_temp_metric",
]
