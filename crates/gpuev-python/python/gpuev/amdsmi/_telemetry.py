"""How a GPU is doing, beyond temperature and power: energy, the driver's table of metrics, clocks, links."""

from __future__ import annotations

import time

from .._core import gpu_attribute, gpu_fan, gpu_metrics_table, gpu_pcie
from ._exceptions import AmdSmiLibraryException, AmdSmiParameterException, AmdSmiRetCode
from ._identity import present
from ._policies import number
from ._session import not_supported, sensors_of
from ._types import (
    AmdSmiClkType,
    AmdSmiUtilizationCounterType,
    AmdSmiVoltageMetric,
    AmdSmiVoltageType,
    AmdSmiXgmiStatus,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple, Union

    from .._core import processor_handle

_NOT_AVAILABLE = "N/A"
# 2^-16 joule, in microjoules.
_ENERGY_RESOLUTION = 15.2587890625
# What the driver's clocks are called in its files.
_CLOCK_FILES = {0: "sclk", 1: "fclk", 2: "dcefclk", 3: "socclk", 4: "mclk", 5: "pcie"}


def _check(value: object, kind: Any) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise AmdSmiParameterException(value, kind)


def _or_na(value: Optional[int]) -> Union[int, str]:
    return _NOT_AVAILABLE if value is None else value


def _table(handle: processor_handle) -> Dict[str, Any]:
    """The driver's table; raises NOT_SUPPORTED where the GPU has none that is known."""
    table = gpu_metrics_table(present(handle))
    if table is None or len(table) <= _FIXED_KEYS:
        raise not_supported()
    return table


# structure_size, format_revision, content_revision, partitions.
_FIXED_KEYS = 4


def amdsmi_get_energy_count(processor_handle: processor_handle) -> Dict[str, Union[int, float]]:
    """
    Get how much energy the GPU has used since the driver was loaded.

    Returns:
    - dict: energy_accumulator (int): the counter; counter_resolution (float): microjoules that one count is worth;
      timestamp (int): when it was read, in nanoseconds of the firmware's clock

    Raises:
    - AmdSmiLibraryException: NOT_SUPPORTED if the GPU has no counter

    Note:
    - Some GPUs have a counter that stays 0
    """
    table = _table(processor_handle)
    return {
        "energy_accumulator": _known(table.get("energy_accumulator")),
        "counter_resolution": _ENERGY_RESOLUTION,
        "timestamp": table.get("system_clock_counter") or 0,
    }


# The keys of amdsmi_get_gpu_metrics_info, and how many numbers one has.
_KEYS = """
temperature_edge temperature_hotspot temperature_mem temperature_vrgfx temperature_vrsoc temperature_vrmem
average_gfx_activity average_umc_activity average_mm_activity average_socket_power energy_accumulator
system_clock_counter average_gfxclk_frequency average_socclk_frequency average_uclk_frequency
average_vclk0_frequency average_dclk0_frequency average_vclk1_frequency average_dclk1_frequency current_gfxclk
current_socclk current_uclk current_vclk0 current_dclk0 current_vclk1 current_dclk1 throttle_status
current_fan_speed pcie_link_width pcie_link_speed gfx_activity_acc mem_activity_acc temperature_hbm:4
firmware_timestamp voltage_soc voltage_gfx voltage_mem indep_throttle_status current_socket_power vcn_activity:4
gfxclk_lock_status xgmi_link_width xgmi_link_speed pcie_bandwidth_acc pcie_bandwidth_inst
pcie_l0_to_recov_count_acc pcie_replay_count_acc pcie_replay_rover_count_acc xgmi_read_data_acc:8
xgmi_write_data_acc:8 current_gfxclks:8 current_socclks:4 current_vclk0s:4 current_dclk0s:4 jpeg_activity:32
pcie_nak_sent_count_acc pcie_nak_rcvd_count_acc accumulation_counter prochot_residency_acc ppt_residency_acc
socket_thm_residency_acc vr_thm_residency_acc hbm_thm_residency_acc num_partition
xcp_stats.gfx_busy_inst:8 xcp_stats.jpeg_busy:40 xcp_stats.vcn_busy:4 xcp_stats.gfx_busy_acc:8
xcp_stats.gfx_below_host_limit_acc:8 xcp_stats.gfx_below_host_limit_ppt_acc:8
xcp_stats.gfx_below_host_limit_thm_acc:8 xcp_stats.gfx_low_utilization_acc:8
xcp_stats.gfx_below_host_limit_total_acc:8 pcie_lc_perf_other_end_recovery vram_max_bandwidth xgmi_link_status:8
"""
_PERCENTAGES = ("activity", "busy_inst", "jpeg_busy", "vcn_busy")
_PARTITIONS = 8
# One clock under two names: that of the first engine, where the driver has several.
_FIRST_OF = {
    "current_gfxclk": ("current_gfxclks", 0),
    "current_socclk": ("current_socclks", 0),
    "current_vclk0": ("current_vclk0s", 0),
    "current_vclk1": ("current_vclk0s", 1),
    "current_dclk0": ("current_dclk0s", 0),
    "current_dclk1": ("current_dclk0s", 1),
}


_HEADER = ("structure_size", "format_revision", "content_revision")


def metrics_keys() -> List[str]:
    """The keys of `amdsmi_get_gpu_metrics_info`, in their order."""
    return [f"common_header.{name}" for name in _HEADER] + [w.partition(":")[0] for w in _KEYS.split()]


def _shown(key: str, value: Optional[int]) -> Union[int, str, bool]:
    if value is None or (key.endswith(_PERCENTAGES) and value > 100):
        return _NOT_AVAILABLE
    return bool(value) if key in ("throttle_status", "indep_throttle_status") else value


def _several(key: str, values: Optional[List[Optional[int]]], count: int) -> List[Any]:
    if not values:
        return [_NOT_AVAILABLE] * count
    most = 100 if key.endswith(_PERCENTAGES) else None
    shown: List[Any] = [
        _NOT_AVAILABLE if value is None or (most is not None and value > most) else value
        for value in values[:count]
    ]
    return shown + [_NOT_AVAILABLE] * (count - len(shown))


# First number of the table's revision; those of APUs have others.
_OF_GPUS = 1


def _of_apu(handle: processor_handle, table: Dict[str, Any]) -> Dict[str, Optional[int]]:
    """What the table of an APU has under other names, or in units that depend on the APU: those even the sensors out."""
    sensors = sensors_of(handle)
    power, activity, voltages = sensors.power(), sensors.activity(), sensors.voltages()
    edge = sensors.temperature(0)
    average, current = (
        None if value is None else value // 1_000_000 for value in (power["average"], power["current"])
    )
    return {
        "temperature_edge": None if edge is None else int(edge / 1000),
        "average_gfx_activity": activity["gfx"],
        "average_umc_activity": activity["memory"],
        "average_mm_activity": activity["media"],
        "average_socket_power": average,
        "current_socket_power": current,
        "average_vclk0_frequency": table.get("average_vclk_frequency"),
        "average_dclk0_frequency": table.get("average_dclk_frequency"),
        "current_vclk0": table.get("current_vclk"),
        "current_dclk0": table.get("current_dclk"),
        "voltage_soc": voltages["soc"],
        "voltage_gfx": voltages["gfx"],
    }


def amdsmi_get_gpu_metrics_info(processor_handle: processor_handle) -> Dict[str, Any]:
    """
    Get the driver's table `gpu_metrics`, in the driver's units: degrees Celsius, watts, MHz, percent.

    The table of an APU has other fields, in units that depend on the APU. What the keys have in common with them is
    given, in the same units as of other GPUs.

    Returns:
    - dict: The vendor's keys. "N/A" where the table has no such field, or no value for it; a list of values where
      there are several of a kind, and of lists where each partition has several

    Raises:
    - AmdSmiLibraryException: NOT_SUPPORTED if the GPU has no table, or one of a revision that is not known
    """
    table = _table(processor_handle)
    if table["format_revision"] != _OF_GPUS:
        table.update(_of_apu(processor_handle, table))
    for name, (several, index) in _FIRST_OF.items():
        if several in table:
            table[name] = table[several][index]
    told: Dict[str, Any] = {
        f"common_header.{name}": table[name]
        for name in _HEADER
    }
    partitions = table["partitions"]
    for word in _KEYS.split():
        key, _, count = word.partition(":")
        name = key.replace("xcp_stats.", "")
        if name != key:
            told[key] = [
                _several(key, partitions[place].get(name) if partitions else None, int(count))
                for place in range(_PARTITIONS)
            ]
        elif count:
            told[key] = _several(key, table.get(name), int(count))
        else:
            told[key] = _shown(key, table.get(name))
    return told


def amdsmi_get_gpu_metrics_header_info(processor_handle: processor_handle) -> Dict[str, int]:
    """
    Get the size and revision of the driver's table `gpu_metrics`.

    Returns:
    - dict: structure_size, format_revision, content_revision (int)
    """
    table = gpu_metrics_table(present(processor_handle))
    if table is None:
        raise not_supported()
    return {key: table[key] for key in _HEADER}


_INTERFACES = {2500: 1, 5000: 2, 8000: 3, 16000: 4, 32000: 5, 64000: 6}


def amdsmi_get_pcie_info(processor_handle: processor_handle) -> Dict[str, Dict[str, Any]]:
    """
    Get the PCI Express link.

    Returns:
    - dict: pcie_static (dict): max_pcie_width, max_pcie_speed (megatransfers a second), pcie_interface_version,
      slot_type; pcie_metric (dict): pcie_width, pcie_speed, pcie_bandwidth (as the driver counts it) and counters; "N/A"
      what the GPU does not tell
    """
    gpu = present(processor_handle)
    link, table = gpu_pcie(gpu), gpu_metrics_table(gpu) or {}
    if link["max_speed"] is None and link["speed"] is None:
        raise not_supported()
    replays = table.get("pcie_replay_count_acc")
    return {
        "pcie_static": {
            "max_pcie_width": _or_na(link["max_width"]),
            "max_pcie_speed": _or_na(link["max_speed"]),
            "pcie_interface_version": _or_na(_INTERFACES.get(link["max_speed"] or 0)),
            "slot_type": _NOT_AVAILABLE,
        },
        "pcie_metric": {
            "pcie_width": _or_na(link["width"]),
            "pcie_speed": _or_na(link["speed"]),
            "pcie_bandwidth": _or_na(table.get("pcie_bandwidth_inst")),
            "pcie_replay_count": _or_na(link["replays"] if replays is None else replays),
            "pcie_l0_to_recovery_count": _or_na(table.get("pcie_l0_to_recov_count_acc")),
            "pcie_replay_roll_over_count": _or_na(table.get("pcie_replay_rover_count_acc")),
            "pcie_nak_sent_count": _or_na(table.get("pcie_nak_sent_count_acc")),
            "pcie_nak_received_count": _or_na(table.get("pcie_nak_rcvd_count_acc")),
            "pcie_lc_perf_other_end_recovery_count": _or_na(
                table.get("pcie_lc_perf_other_end_recovery")
            ),
        },
    }


def _known(value: Optional[int]) -> int:
    if value is None:
        raise not_supported()
    return value


def amdsmi_get_gpu_pci_replay_counter(processor_handle: processor_handle) -> int:
    """Get how many PCI Express packets had to be sent again since the driver was loaded."""
    return _known(gpu_pcie(present(processor_handle))["replays"])


def amdsmi_get_gpu_pci_throughput(processor_handle: processor_handle) -> Dict[str, int]:
    """
    Get the traffic on PCI Express of the last second; reading it takes a second.

    Returns:
    - dict: sent, received (int): packets; max_pkt_sz (int): bytes of the largest

    Raises:
    - AmdSmiLibraryException: NOT_SUPPORTED if the GPU does not count
    """
    words = (gpu_attribute(present(processor_handle), "pcie_bw") or "").split()
    if len(words) != 3 or not all(word.isdecimal() for word in words):
        raise not_supported()
    # The driver writes what was received first.
    received, sent, size = map(int, words)
    return {"sent": sent, "received": received, "max_pkt_sz": size}


def _levels(text: Optional[str]) -> Tuple[List[str], int]:
    """The levels of a `pp_dpm_*` file, and the place of the one in use."""
    lines = [line for line in (text or "").splitlines() if ":" in line]
    current = [place for place, line in enumerate(lines) if line.rstrip().endswith("*")]
    if not current:
        raise not_supported()
    return [line.partition(":")[2].strip(" *") for line in lines], current[-1]


def _leading_number(text: str) -> float:
    digits = text[: next((i for i, c in enumerate(text) if c not in "0123456789."), len(text))]
    try:
        return float(digits)
    except ValueError:
        raise not_supported() from None


def amdsmi_get_clk_freq(
    processor_handle: processor_handle, clk_type: AmdSmiClkType
) -> Dict[str, Any]:
    """
    Get the levels of a clock.

    Returns:
    - dict: num_supported (int), current (int): place of the level in use, frequency (list of int): hertz

    Raises:
    - AmdSmiParameterException: If a parameter is not valid
    - AmdSmiLibraryException: NOT_SUPPORTED if the GPU does not tell of this clock
    """
    gpu = present(processor_handle)
    _check(clk_type, AmdSmiClkType)
    file = _CLOCK_FILES.get(clk_type)
    if file is None or file == "pcie":
        raise not_supported()
    levels, current = _levels(gpu_attribute(gpu, f"pp_dpm_{file}"))
    frequencies = [int(_leading_number(level) * 1_000_000) for level in levels]
    return {"num_supported": len(levels), "current": current, "frequency": frequencies}


def amdsmi_get_gpu_pci_bandwidth(processor_handle: processor_handle) -> Dict[str, Any]:
    """
    Get the levels of the PCI Express link.

    Returns:
    - dict: transfer_rate (dict): num_supported, current (place of the level in use), frequency (list of int,
      transfers a second); lanes (list of int)
    """
    levels, current = _levels(gpu_attribute(present(processor_handle), "pp_dpm_pcie"))
    rates, lanes = [], []
    for level in levels:
        rate, _, rest = level.partition(",")
        rates.append(int(_leading_number(rate) * 1_000_000_000))
        lanes.append(int(_leading_number(rest.strip().lstrip("x"))))
    rate_levels = {"num_supported": len(levels), "current": current, "frequency": rates}
    return {"transfer_rate": rate_levels, "lanes": lanes}


def _fan(handle: processor_handle, sensor_idx: int, what: str) -> int:
    fan = gpu_fan(present(handle))
    _check(sensor_idx, int)
    if sensor_idx != 0:
        raise not_supported()
    return _known(fan[what])  # type: ignore[literal-required]


def amdsmi_get_gpu_fan_rpms(processor_handle: processor_handle, sensor_idx: int) -> int:
    """Get the speed of the board's fan (sensor_idx 0) in revolutions a minute."""
    return _fan(processor_handle, sensor_idx, "speed")


_FULL_DRIVE = 255


def amdsmi_get_gpu_fan_speed(processor_handle: processor_handle, sensor_idx: int) -> int:
    """Get how hard the board's fan (sensor_idx 0) is driven: 0 to 255."""
    return (_fan(processor_handle, sensor_idx, "duty") * _FULL_DRIVE + 50) // 100


def amdsmi_get_gpu_fan_speed_max(processor_handle: processor_handle, sensor_idx: int) -> int:
    """Get how hard the board's fan (sensor_idx 0) can be driven: 255."""
    _fan(processor_handle, sensor_idx, "duty")
    return _FULL_DRIVE


def amdsmi_get_gpu_volt_metric(
    processor_handle: processor_handle,
    sensor_type: AmdSmiVoltageType,
    metric: AmdSmiVoltageMetric,
) -> int:
    """
    Get a voltage in millivolts: VDDGFX, CURRENT.

    Raises:
    - AmdSmiParameterException: If a parameter is not valid
    - AmdSmiLibraryException: NOT_SUPPORTED for other voltages, and if the GPU does not measure it
    """
    voltages = sensors_of(processor_handle).voltages()
    _check(sensor_type, AmdSmiVoltageType)
    _check(metric, AmdSmiVoltageMetric)
    if sensor_type is not AmdSmiVoltageType.VDDGFX or metric is not AmdSmiVoltageMetric.CURRENT:
        raise not_supported()
    return _known(voltages["gfx"])


_COUNTERS = {
    "COARSE_GRAIN_GFX_ACTIVITY": "gfx_activity_acc",
    "COARSE_GRAIN_MEM_ACTIVITY": "mem_activity_acc",
    "FINE_GRAIN_GFX_ACTIVITY": "gfx_activity_acc",
    "FINE_GRAIN_MEM_ACTIVITY": "mem_activity_acc",
}


def amdsmi_get_utilization_count(
    processor_handle: processor_handle,
    counter_types: Union[AmdSmiUtilizationCounterType, List[AmdSmiUtilizationCounterType]],
) -> List[Dict[str, Any]]:
    """
    Get counters that grow while the GPU is busy.

    Returns:
    - list of dicts: first timestamp (nanoseconds of the firmware's clock), then type (str) and value (int) of each

    Raises:
    - AmdSmiParameterException: If a parameter is not valid
    - AmdSmiLibraryException: INVAL for an empty list, NOT_SUPPORTED if the GPU does not count
    """
    table = _table(processor_handle)
    types = counter_types if isinstance(counter_types, list) else [counter_types]
    if not types:
        raise AmdSmiLibraryException(AmdSmiRetCode.INVAL)
    told: List[Dict[str, Any]] = [{"timestamp": table.get("system_clock_counter") or 0}]
    for kind in dict.fromkeys(types):
        _check(kind, AmdSmiUtilizationCounterType)
        value = _known(table.get(_COUNTERS.get(kind.name, "")))
        told.append({"type": f"AMDSMI_{kind.name}", "value": value})
    return told


# The counter of a reason, and what the vendor calls it.
_VIOLATIONS = {
    "prochot_thrm": "prochot_residency_acc",
    "ppt_pwr": "ppt_residency_acc",
    "socket_thrm": "socket_thm_residency_acc",
    "vr_thrm": "vr_thm_residency_acc",
    "hbm_thrm": "hbm_thm_residency_acc",
}
_BELOW_LIMIT = {
    "gfx_clk_below_host_limit_pwr": "gfx_below_host_limit_ppt_acc",
    "gfx_clk_below_host_limit_thm": "gfx_below_host_limit_thm_acc",
    "gfx_clk_below_host_limit_total": "gfx_below_host_limit_total_acc",
    "low_utilization": "gfx_low_utilization_acc",
}
# The firmware counts ten times a second.
_SAMPLE_SECONDS = 0.1


def _share(before: Optional[int], after: Optional[int], ticks: int) -> Union[int, str]:
    """Percent of the time between two samples."""
    if before is None or after is None or ticks <= 0 or not 0 <= after - before <= ticks:
        return _NOT_AVAILABLE
    return (after - before) * 100 // ticks


def _active(share: Union[int, str]) -> Union[bool, str]:
    return share if isinstance(share, str) else share > 0


def amdsmi_get_violation_status(processor_handle: processor_handle) -> Dict[str, Any]:
    """
    Get whether and why the GPU was throttled in the last tenth of a second; it takes that long.

    Returns:
    - dict: reference_timestamp (microseconds since 1970), violation_timestamp (milliseconds, "N/A" where nothing was
      throttled); for each reason acc_... (the counter), per_... (percent of the time), active_... (bool); "N/A" what
      the GPU does not tell

    Raises:
    - AmdSmiLibraryException: NOT_SUPPORTED if the GPU does not count
    """
    now = int(time.time() * 1_000_000)
    before = _table(processor_handle)
    if before.get("accumulation_counter") is None:
        raise not_supported()
    time.sleep(_SAMPLE_SECONDS)
    after = _table(processor_handle)
    ticks = (after.get("accumulation_counter") or 0) - before["accumulation_counter"]
    accumulated: Dict[str, Any] = {"acc_counter": _or_na(after.get("accumulation_counter"))}
    shares: Dict[str, Any] = {}
    for name, counter in _VIOLATIONS.items():
        accumulated[f"acc_{name}"] = _or_na(after.get(counter))
        shares[name] = _share(before.get(counter), after.get(counter), ticks)
    accumulated["acc_gfx_clk_below_host_limit"] = shares["gfx_clk_below_host_limit"] = _NOT_AVAILABLE
    for name, counter in _BELOW_LIMIT.items():
        accumulated[f"acc_{name}"] = _grid(after, counter)
        shares[name] = _share_grid(before, after, counter, ticks)
    hit = any(isinstance(share, int) and share > 0 for share in shares.values())
    return {
        "reference_timestamp": now,
        "violation_timestamp": int(_SAMPLE_SECONDS * 1000) if hit else _NOT_AVAILABLE,
        **accumulated,
        **{f"per_{name}": share for name, share in shares.items()},
        **{f"active_{name}": _active_of(share) for name, share in shares.items()},
    }


def _active_of(share: Any) -> Any:
    return [[_active(one) for one in row] for row in share] if isinstance(share, list) else _active(share)


_ENGINES = 8


def _row(table: Dict[str, Any], counter: str, place: int) -> List[Optional[int]]:
    partitions = table["partitions"]
    values = partitions[place].get(counter) if partitions else None
    return values or [None] * _ENGINES


def _grid(table: Dict[str, Any], counter: str) -> List[List[Any]]:
    rows = (_row(table, counter, place) for place in range(_PARTITIONS))
    return [[_or_na(value) for value in row] for row in rows]


def _share_grid(
    before: Dict[str, Any], after: Dict[str, Any], counter: str, ticks: int
) -> List[List[Any]]:
    pairs = ((_row(before, counter, p), _row(after, counter, p)) for p in range(_PARTITIONS))
    return [[_share(old, new, ticks) for old, new in zip(*rows)] for rows in pairs]


def amdsmi_get_link_metrics(processor_handle: processor_handle) -> Dict[str, Any]:
    """
    Get the traffic of the XGMI links.

    Returns:
    - dict: num_links (int), links (list of dicts): bdf ("N/A": the driver does not say which link leads where),
      bit_rate (Gb/s), max_bandwidth ("N/A"), link_type (2, XGMI), read, write (kilobytes)
    """
    table = _table(processor_handle)
    reads, writes = table.get("xgmi_read_data_acc"), table.get("xgmi_write_data_acc")
    if not reads or not writes:
        raise not_supported()
    links = [
        {
            "bdf": _NOT_AVAILABLE,
            "bit_rate": _or_na(table.get("xgmi_link_speed")),
            "max_bandwidth": _NOT_AVAILABLE,
            "link_type": 2,
            "read": _or_na(read),
            "write": _or_na(write),
        }
        for read, write in zip(reads, writes)
    ]
    return {"num_links": len(links), "links": links}


def amdsmi_gpu_xgmi_error_status(processor_handle: processor_handle) -> int:
    """Get whether there were errors on the XGMI links, as in AmdSmiXgmiStatus."""
    status = number(processor_handle, "xgmi_error")
    if status not in [int(known) for known in AmdSmiXgmiStatus]:
        raise not_supported()
    return status


def amdsmi_get_gpu_process_isolation(processor_handle: processor_handle) -> int:
    """Get whether what one process leaves on the GPU is cleared before another runs: 0 or 1."""
    gpu = present(processor_handle)
    words = (gpu_attribute(gpu, "enforce_isolation") or "").split()
    if gpu.partition >= len(words) or not words[gpu.partition].isdecimal():
        raise not_supported()
    return int(words[gpu.partition])


__all__ = [
    "amdsmi_get_clk_freq",
    "amdsmi_get_energy_count",
    "amdsmi_get_gpu_fan_rpms",
    "amdsmi_get_gpu_fan_speed",
    "amdsmi_get_gpu_fan_speed_max",
    "amdsmi_get_gpu_metrics_header_info",
    "amdsmi_get_gpu_metrics_info",
    "amdsmi_get_gpu_pci_bandwidth",
    "amdsmi_get_gpu_pci_replay_counter",
    "amdsmi_get_gpu_pci_throughput",
    "amdsmi_get_gpu_process_isolation",
    "amdsmi_get_gpu_volt_metric",
    "amdsmi_get_link_metrics",
    "amdsmi_get_pcie_info",
    "amdsmi_get_utilization_count",
    "amdsmi_get_violation_status",
    "amdsmi_gpu_xgmi_error_status",
]
