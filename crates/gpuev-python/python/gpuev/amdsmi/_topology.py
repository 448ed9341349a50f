"""How GPUs reach one another and the CPUs, from KFD's topology."""

from __future__ import annotations

from .._core import (
    gpu_attribute,
    gpu_caches,
    gpu_links,
    gpu_metrics_table,
    gpu_nearest_cpu,
    gpu_route,
    list_gpus,
    processor_handle,
)
from ..errors import Error
from ._exceptions import AmdSmiLibraryException, AmdSmiParameterException, AmdSmiRetCode
from ._identity import present
from ._session import gpu_of, library_exception, not_supported
from ._types import AmdSmiAffinityScope, AmdSmiLinkType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple, Union

    from .._core import Gpu, _Link

_TYPES = {"pcie": "PCIE", "xgmi": "XGMI", "other": "UNKNOWN"}
# CRAT_IOLINK_FLAGS_*
_NON_COHERENT, _NO_ATOMICS_32, _NO_ATOMICS_64, _NO_DMA, _BI_DIRECTIONAL = 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 31


def _type(kind: str) -> int:
    return int(AmdSmiLinkType[f"AMDSMI_LINK_TYPE_{_TYPES[kind]}"])


def _both(source: processor_handle, destination: processor_handle) -> Tuple[Gpu, Gpu]:
    return present(source), present(destination)


def amdsmi_topo_get_link_type(
    processor_handle_src: processor_handle, processor_handle_dst: processor_handle
) -> Dict[str, int]:
    """
    Get over what, and over how many links, one GPU reaches another.

    Returns:
    - dict: hops (int): 1 direct, 2 by way of one CPU, 3 by way of two, 4 by way of more, 0 from a GPU to itself;
      type (int): as in AmdSmiLinkType

    Raises:
    - AmdSmiParameterException: If a handle is not valid
    - AmdSmiLibraryException: NOT_SUPPORTED if the driver shows no way
    """
    source, destination = _both(processor_handle_src, processor_handle_dst)
    if source == destination:
        return {"hops": 0, "type": int(AmdSmiLinkType.AMDSMI_LINK_TYPE_INTERNAL)}
    route = gpu_route(source, destination)
    if route is None:
        raise not_supported()
    return {"hops": route["hops"], "type": _type(route["kind"])}


def amdsmi_topo_get_link_weight(
    processor_handle_src: processor_handle, processor_handle_dst: processor_handle
) -> int:
    """Get how long the way from one GPU to another is, by the driver's weights. Raises NOT_SUPPORTED where unknown."""
    source, destination = _both(processor_handle_src, processor_handle_dst)
    if source == destination:
        return 0
    route = gpu_route(source, destination)
    if route is None or route["weight"] is None:
        raise not_supported()
    return route["weight"]


def _direct(source: Gpu, destination: Gpu) -> Optional[_Link]:
    links = (link for link in gpu_links(source) if link["to"] == destination.kfd_node)
    return next(links, None)


def amdsmi_get_minmax_bandwidth_between_processors(
    processor_handle_src: processor_handle, processor_handle_dst: processor_handle
) -> Dict[str, int]:
    """
    Get the bandwidth of the XGMI link from one GPU to another.

    Returns:
    - dict: min_bandwidth, max_bandwidth (int) in megabytes a second

    Raises:
    - AmdSmiLibraryException: INVAL for a GPU and itself, NOT_SUPPORTED where no XGMI link joins the two
    """
    source, destination = _both(processor_handle_src, processor_handle_dst)
    if source == destination:
        raise AmdSmiLibraryException(AmdSmiRetCode.INVAL)
    link = _direct(source, destination)
    if link is None or link["kind"] != "xgmi":
        raise not_supported()
    return {"min_bandwidth": link["min_bandwidth"], "max_bandwidth": link["max_bandwidth"]}


def amdsmi_is_P2P_accessible(
    processor_handle_src: processor_handle, processor_handle_dst: processor_handle
) -> bool:
    """Get whether one GPU can read and write the memory of another."""
    source, destination = _both(processor_handle_src, processor_handle_dst)
    return source == destination or _direct(source, destination) is not None


def amdsmi_topo_get_p2p_status(
    processor_handle_src: processor_handle, processor_handle_dst: processor_handle
) -> Dict[str, Any]:
    """
    Get what the direct link from one GPU to another can do.

    Returns:
    - dict: type (int): as in AmdSmiLinkType; cap (dict): is_iolink_coherent, is_iolink_atomics_32bit,
      is_iolink_atomics_64bit, is_iolink_dma, is_iolink_bi_directional (int): 0 or 1

    Raises:
    - AmdSmiLibraryException: NOT_SUPPORTED where no link joins the two
    """
    source, destination = _both(processor_handle_src, processor_handle_dst)
    link = _direct(source, destination)
    if link is None:
        raise not_supported()
    flags = link["flags"]
    return {
        "type": _type(link["kind"]),
        "cap": {
            "is_iolink_coherent": int(not flags & _NON_COHERENT),
            "is_iolink_atomics_32bit": int(not flags & _NO_ATOMICS_32),
            "is_iolink_atomics_64bit": int(not flags & _NO_ATOMICS_64),
            "is_iolink_dma": int(not flags & _NO_DMA),
            "is_iolink_bi_directional": int(bool(flags & _BI_DIRECTIONAL)),
        },
    }


def amdsmi_get_link_topology_nearest(
    processor_handle: processor_handle, link_type: AmdSmiLinkType
) -> Dict[str, List[Any]]:
    """
    Get the other GPUs that are reached over links of a type, the nearest first.

    Returns:
    - dict: processor_list (list of processor_handle)
    """
    gpu = present(processor_handle)
    if not isinstance(link_type, AmdSmiLinkType):
        raise AmdSmiParameterException(link_type, AmdSmiLinkType)
    try:
        others = list_gpus()
    except Error as error:
        raise library_exception(error) from error
    found = []
    for other in others:
        route = gpu_route(gpu, other)
        if route is not None and _type(route["kind"]) == link_type:
            # What has no weight known is last.
            weight = float("inf") if route["weight"] is None else route["weight"]
            found.append((weight, route["hops"], other.index, other))
    handle = type(processor_handle)
    return {"processor_list": [handle.of(other) for *_, other in sorted(found, key=lambda f: f[:3])]}


def amdsmi_topo_get_numa_node_number(processor_handle: processor_handle) -> int:
    """Get the NUMA node of the nearest CPU. Raises NOT_SUPPORTED where the driver shows no link to one."""
    node = gpu_nearest_cpu(present(processor_handle))
    if node is None:
        raise not_supported()
    return node


def amdsmi_get_gpu_topo_numa_affinity(processor_handle: processor_handle) -> int:
    """Get the NUMA node of the PCI device; -1 where the machine's firmware does not say."""
    text = gpu_attribute(present(processor_handle), "numa_node", fixed=True)
    try:
        return int(text or "")
    except ValueError:
        raise not_supported() from None


def amdsmi_get_cpu_affinity_with_scope(
    processor_handle: processor_handle, scope: AmdSmiAffinityScope
) -> List[int]:
    """
    Get which CPUs are near a GPU.

    Returns:
    - list: A bit for each CPU, 64 in each int, the lowest first

    Raises:
    - AmdSmiLibraryException: NOT_SUPPORTED for SOCKET_SCOPE, and where the kernel does not say
    """
    gpu = present(processor_handle)
    if not isinstance(scope, AmdSmiAffinityScope):
        raise AmdSmiParameterException(scope, AmdSmiAffinityScope)
    text = gpu_attribute(gpu, "local_cpus", fixed=True)
    if scope is not AmdSmiAffinityScope.NUMA_SCOPE or text is None:
        raise not_supported()
    try:
        mask = int(text.replace(",", ""), 16)
    except ValueError:
        raise not_supported() from None
    words = max(1, (mask.bit_length() + 63) // 64)
    return [mask >> 64 * word & (1 << 64) - 1 for word in range(words)]


def amdsmi_get_xgmi_info(processor_handle: processor_handle) -> Dict[str, Union[int, str]]:
    """
    Get to which hive of XGMI links the GPU belongs.

    Returns:
    - dict: xgmi_lanes, xgmi_node_id, index (int), xgmi_hive_id (int): all 0 where the GPU belongs to no hive; "N/A"
      what the driver does not say
    """
    gpu = present(processor_handle)
    if not gpu.hive:
        return {"xgmi_lanes": 0, "xgmi_hive_id": 0, "xgmi_node_id": 0, "index": 0}
    lanes = (gpu_metrics_table(gpu) or {}).get("xgmi_link_width")
    node = gpu_attribute(gpu, "xgmi_physical_id", fixed=True) or ""
    return {
        "xgmi_lanes": "N/A" if lanes is None else lanes,
        "xgmi_hive_id": gpu.hive,
        "xgmi_node_id": int(node) if node.isdecimal() else "N/A",
        "index": "N/A",
    }


def amdsmi_get_gpu_xgmi_link_status(processor_handle: processor_handle) -> Dict[str, Any]:
    """
    Get which XGMI links are up.

    Returns:
    - dict: status (list): "U" up, "D" down, "X" disabled, "N/A"; total_links (int)
    """
    status = (gpu_metrics_table(present(processor_handle)) or {}).get("xgmi_link_status")
    if not status or all(link is None for link in status):
        raise not_supported()
    names = {0: "D", 1: "U", 2: "X"}
    return {"status": [names.get(link, "N/A") for link in status], "total_links": len(status)}


# HSA_CACHE_TYPE_*, and the vendor's names, in its order.
_CACHE_PROPERTIES = {1: "DATA_CACHE", 2: "INST_CACHE", 4: "CPU_CACHE", 8: "SIMD_CACHE"}


def amdsmi_get_gpu_cache_info(processor_handle: processor_handle) -> Dict[str, List[Dict[str, Any]]]:
    """
    Get what caches the GPU has.

    Returns:
    - dict: cache (list of dicts, one for caches that are alike): cache_properties (list of "DATA_CACHE", "INST_CACHE",
      "CPU_CACHE", "SIMD_CACHE"), cache_size in KiB, cache_level, max_num_cu_shared (compute units that share one),
      num_cache_instance (how many there are)

    Raises:
    - AmdSmiLibraryException: NO_DATA if the driver lists none
    """
    caches = [
        {
            "cache_properties": [name for bit, name in _CACHE_PROPERTIES.items() if cache["flags"] & bit],
            "cache_size": cache["kibibytes"],
            "cache_level": cache["level"],
            "max_num_cu_shared": cache["compute_units"],
            "num_cache_instance": cache["count"],
        }
        for cache in gpu_caches(present(processor_handle))
    ]
    if not caches:
        raise AmdSmiLibraryException(AmdSmiRetCode.NO_DATA)
    return {"cache": caches}


__all__ = [
    "amdsmi_get_gpu_cache_info",
    "amdsmi_get_cpu_affinity_with_scope",
    "amdsmi_get_gpu_topo_numa_affinity",
    "amdsmi_get_gpu_xgmi_link_status",
    "amdsmi_get_link_topology_nearest",
    "amdsmi_get_minmax_bandwidth_between_processors",
    "amdsmi_get_xgmi_info",
    "amdsmi_is_P2P_accessible",
    "amdsmi_topo_get_link_type",
    "amdsmi_topo_get_link_weight",
    "amdsmi_topo_get_numa_node_number",
    "amdsmi_topo_get_p2p_status",
]
