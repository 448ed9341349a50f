"""What a GPU is: board, driver, firmware, numbers and partitions, in the vendor's keys."""

from __future__ import annotations

import os

from .._core import __version__ as _gpuev
from .._core import driver_info, gpu_attribute, gpu_memory_width, gpu_metrics_table, list_gpus
from ..errors import Error
from . import _names, _units
from ._exceptions import AmdSmiParameterException
from ._session import gpu_of, not_supported, sensors_of
from ._types import AmdSmiFwBlock, AmdSmiVirtualizationMode, AmdSmiVramType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List, Optional, Tuple, Union

    from .._core import Gpu, processor_handle

_NOT_AVAILABLE = "N/A"
_MEBIBYTE = 1 << 20
_VENDOR_NAME = "Advanced Micro Devices, Inc. [AMD/ATI]"


def _fixed(gpu: Gpu, name: str) -> Optional[str]:
    return gpu_attribute(gpu, name, fixed=True)


def present(handle: processor_handle) -> Gpu:
    """The GPU of `handle`; raises code 31 where it is gone."""
    sensors_of(handle)
    return gpu_of(handle)


def amdsmi_get_gpu_board_info(processor_handle: processor_handle) -> Dict[str, str]:
    """
    Get what the board's own memory (FRU) says.

    Returns:
    - dict: model_number, product_serial, fru_id, product_name, manufacturer_name (str); "N/A" what is not known
    """
    gpu = present(processor_handle)
    files = {
        "model_number": "product_number",
        "product_serial": "serial_number",
        "fru_id": "fru_id",
        "product_name": "product_name",
        "manufacturer_name": "manufacturer",
    }
    board = {key: _fixed(gpu, file) or _NOT_AVAILABLE for key, file in files.items()}
    if board["product_name"] == _NOT_AVAILABLE and gpu.name:
        board["product_name"] = gpu.name
    return board


def amdsmi_get_gpu_driver_info(processor_handle: processor_handle) -> Dict[str, str]:
    """
    Get the driver's name and version.

    Returns:
    - dict: driver_name ("amdgpu"), driver_version (that of AMD's own driver, else the kernel's), driver_date
      ("N/A": the kernel's files do not have it)
    """
    present(processor_handle)
    driver = driver_info()
    return {
        "driver_name": "amdgpu",
        "driver_version": driver["version"] or driver["kernel"] or _NOT_AVAILABLE,
        "driver_date": _NOT_AVAILABLE,
    }


def amdsmi_get_gpu_vbios_info(processor_handle: processor_handle) -> Dict[str, str]:
    """
    Get the part number of the video BIOS.

    Returns:
    - dict: name, build_date ("N/A": the kernel's files do not have them), part_number, version (str): the kernel
      has one text for both
    """
    version = _fixed(present(processor_handle), "vbios_version")
    if version is None:
        raise not_supported()
    na = _NOT_AVAILABLE
    return {"name": na, "build_date": na, "part_number": version, "version": version}


def amdsmi_get_gpu_vram_info(processor_handle: processor_handle) -> Dict[str, Union[int, str]]:
    """
    Get what VRAM the GPU has.

    Returns:
    - dict: vram_type (AmdSmiVramType; UNKNOWN: the kernel's files do not have it), vram_vendor (str), vram_size
      in megabytes (1024 * 1024 bytes), vram_bit_width, vram_max_bandwidth in GB/s; "N/A" what is not
      known
    """
    gpu = present(processor_handle)
    total = sensors_of(processor_handle).memory()["vram_total"]
    if total is None:
        raise not_supported()
    width = gpu_memory_width(gpu)
    bandwidth = (gpu_metrics_table(gpu) or {}).get("vram_max_bandwidth")
    return {
        "vram_type": AmdSmiVramType.UNKNOWN,
        "vram_vendor": _fixed(gpu, "mem_info_vram_vendor") or _NOT_AVAILABLE,
        "vram_size": total // _MEBIBYTE,
        "vram_bit_width": _NOT_AVAILABLE if width is None else width,
        "vram_max_bandwidth": _NOT_AVAILABLE if bandwidth is None else bandwidth,
    }


def amdsmi_get_gpu_vram_vendor(processor_handle: processor_handle) -> str:
    """Get who made the VRAM. Raises NOT_SUPPORTED where the driver does not say."""
    vendor = _fixed(present(processor_handle), "mem_info_vram_vendor")
    if vendor is None:
        raise not_supported()
    return vendor


def _pci_id(handle: processor_handle, key: str) -> int:
    number: Optional[int] = sensors_of(handle).pci_ids()[key]  # type: ignore[literal-required]
    if number is None:
        raise not_supported()
    return number


def amdsmi_get_gpu_vendor_name(processor_handle: processor_handle) -> str:
    """Get the name of the GPU's maker."""
    if _pci_id(processor_handle, "vendor") != 0x1002:
        raise not_supported()
    return _VENDOR_NAME


def amdsmi_get_gpu_id(processor_handle: processor_handle) -> int:
    """Get the PCI device id."""
    return _pci_id(processor_handle, "device")


def amdsmi_get_gpu_subsystem_id(processor_handle: processor_handle) -> str:
    """Get the PCI subsystem id, as "0x0e0d"."""
    return f"0x{_pci_id(processor_handle, 'subsystem_device'):04x}"


def amdsmi_get_gpu_subsystem_name(processor_handle: processor_handle) -> str:
    """Get the PCI subsystem id, as "0x0e0d": what the vendor's library gives where no list of names has it."""
    return amdsmi_get_gpu_subsystem_id(processor_handle)


def amdsmi_get_gpu_bdf_id(processor_handle: processor_handle) -> int:
    """
    Get the PCI address as a number.

    Returns:
    - int: domain << 32 | partition << 28 | bus << 8 | device << 3 | function
    """
    gpu = gpu_of(processor_handle)
    domain, bus, rest = gpu.bdf.split(":")
    device, function = rest.split(".")
    place = int(bus, 16) << 8 | int(device, 16) << 3 | int(function, 16)
    return int(domain, 16) << 32 | (gpu.partition & 0xF) << 28 | place


def amdsmi_get_gpu_enumeration_info(
    processor_handle: processor_handle,
) -> Dict[str, Union[int, str]]:
    """
    Get by which numbers other libraries know the GPU.

    Returns:
    - dict: drm_render and drm_card (minors in /dev/dri), hsa_id (number of its KFD node), hip_id (its place among the
      GPUs in order of that number, as HIP counts where no variable hides a GPU), hip_uuid ("GPU-..."); "N/A" what
      is not known
    """
    gpu = present(processor_handle)
    try:
        nodes = sorted(other.kfd_node for other in list_gpus())
    except Error:
        nodes = []
    known = gpu.kfd_node in nodes
    return {
        "drm_render": _NOT_AVAILABLE if gpu.render_minor is None else gpu.render_minor,
        "drm_card": _NOT_AVAILABLE if gpu.card is None else gpu.card,
        "hsa_id": gpu.kfd_node,
        "hip_id": nodes.index(gpu.kfd_node) if known else _NOT_AVAILABLE,
        "hip_uuid": f"GPU-{gpu.unique_id}" if gpu.unique_id else _NOT_AVAILABLE,
    }


def amdsmi_get_gpu_compute_partition(processor_handle: processor_handle) -> str:
    """Get how the compute units are divided: "SPX", "DPX", "TPX", "QPX" or "CPX"."""
    mode = present(processor_handle).compute_partition
    if mode is None:
        raise not_supported()
    return mode


def amdsmi_get_gpu_memory_partition(processor_handle: processor_handle) -> str:
    """Get how the memory is divided: "NPS1", "NPS2", "NPS4" or "NPS8"."""
    mode = present(processor_handle).memory_partition
    if mode is None:
        raise not_supported()
    return mode


def amdsmi_get_gpu_memory_partition_config(
    processor_handle: processor_handle,
) -> Dict[str, Union[str, List[str]]]:
    """
    Get how the memory is divided, and how it could be.

    Returns:
    - dict: partition_caps (list of "NPS1", ..., or ["N/A"]), mp_mode (str), num_numa_ranges and numa_range ("N/A")
    """
    mode = amdsmi_get_gpu_memory_partition(processor_handle)
    modes = _fixed(gpu_of(processor_handle), "available_memory_partition") or ""
    return {
        "partition_caps": [name.strip() for name in modes.split(",") if name.strip()] or ["N/A"],
        "mp_mode": mode,
        "num_numa_ranges": _NOT_AVAILABLE,
        "numa_range": _NOT_AVAILABLE,
    }


def amdsmi_get_gpu_accelerator_partition_profile(
    processor_handle: processor_handle,
) -> Dict[str, Any]:
    """
    Get which partition this is, and of what kind.

    Returns:
    - dict: partition_id (list with one int), partition_profile (dict): profile_type, num_partitions, and
      profile_index, memory_caps, num_resources, resources, which are "N/A"
    """
    gpu = present(processor_handle)
    mode = gpu.compute_partition
    profile = dict.fromkeys(
        ["profile_type", "num_partitions", "profile_index", "memory_caps", "num_resources", "resources"],
        _NOT_AVAILABLE,
    )
    told: Dict[str, Any] = {**profile}
    if mode is not None:
        told.update(profile_type=mode, num_partitions=gpu.partitions)
    return {"partition_id": [gpu.partition], "partition_profile": told}


def amdsmi_get_gpu_xcd_counter(processor_handle: processor_handle) -> int:
    """Get how many accelerator dies (XCDs) report a clock. Raises NOT_SUPPORTED where the GPU has no such table."""
    clocks = (gpu_metrics_table(present(processor_handle)) or {}).get("current_gfxclks") or []
    count = sum(clock is not None for clock in clocks)
    if not count:
        raise not_supported()
    return count


def amdsmi_get_gpu_virtualization_mode(processor_handle: processor_handle) -> Dict[str, Any]:
    """
    Get whether the GPU is virtual.

    Returns:
    - dict: mode (AmdSmiVirtualizationMode): UNKNOWN, as the kernel's files do not say
    """
    present(processor_handle)
    return {"mode": AmdSmiVirtualizationMode.UNKNOWN}


# By file below fw_version/.
_FIRMWARE = {
    "asd": "ASD",
    "ce": "CP_CE",
    "dmcu": "DMCU",
    "mc": "MC",
    "me": "CP_ME",
    "mec": "CP_MEC1",
    "mec2": "CP_MEC2",
    "pfp": "CP_PFP",
    "rlc": "RLC",
    "rlc_srlc": "RLC_RESTORE_LIST_CNTL",
    "rlc_srlg": "RLC_RESTORE_LIST_GPM_MEM",
    "rlc_srls": "RLC_RESTORE_LIST_SRM_MEM",
    "sdma": "SDMA0",
    "sdma2": "SDMA1",
    "smc": "PM",
    "sos": "PSP_SOSDRV",
    "ta_ras": "TA_RAS",
    "ta_xgmi": "TA_XGMI",
    "uvd": "UVD",
    "vce": "VCE",
    "vcn": "VCN",
}
_IN_HEX = ("PSP_SOSDRV", "TA_RAS", "TA_XGMI", "UVD", "VCE", "VCN")


def _firmware_version(block: str, number: int) -> str:
    pairs = number.to_bytes(max(4, (number.bit_length() + 7) // 8), "big")
    if block in _IN_HEX:
        return ".".join(f"{pair:02X}" for pair in pairs)
    return ".".join(f"{pair:02}" for pair in pairs) if block == "PM" else str(number)


def amdsmi_get_fw_info(processor_handle: processor_handle) -> Dict[str, List[Dict[str, Any]]]:
    """
    Get the versions of the firmware.

    Returns:
    - dict: fw_list (list of dicts): fw_name (AmdSmiFwBlock), fw_version (str)
    """
    gpu = present(processor_handle)
    found = []
    for file, block in _FIRMWARE.items():
        text = _fixed(gpu, f"fw_version/{file}_fw_version")
        try:
            number = int(text or "", 0)
        except ValueError:
            continue
        name = AmdSmiFwBlock[f"AMDSMI_FW_ID_{block}"]
        found.append({"fw_name": name, "fw_version": _firmware_version(block, number)})
    return {"fw_list": found}


def amdsmi_get_socket_info(socket_handle: processor_handle) -> str:
    """Get what a socket is called: the PCI address without the function."""
    return gpu_of(socket_handle).bdf.partition(".")[0].upper()


def amdsmi_get_lib_version() -> Dict[str, Union[int, str]]:
    """
    Get whose names these are, and in which units.

    Returns:
    - dict: major, minor, release (int) of the vendor's package whose names exist here, build (str) as `__version__`
    """
    major, minor, release = map(int, _names.VERSION.split("."))
    return {"major": major, "minor": minor, "release": release, "build": version()}


def version() -> str:
    """`amdsmi.__version__`: that of the vendor's package, gpuev's, and the units."""
    return f"{_names.VERSION}+gpuev.{_gpuev}.{_units.version_suffix()}"


def amdsmi_get_rocm_version() -> Tuple[bool, str]:
    """
    Get the version of ROCm, by the file that it installs. gpuev does not need it.

    Returns:
    - tuple: whether it was found, and the version or what is missing
    """
    home = os.environ.get("ROCM_HOME") or os.environ.get("ROCM_PATH") or "/opt/rocm"
    path = os.path.join(home, ".info", "version")
    try:
        with open(path) as file:
            found = file.read(256).strip()
    except OSError as error:
        return False, f"Could not find ROCm: {path}: {error.strerror}"
    return (True, found.partition("-")[0]) if found else (False, f"{path} is empty")


def amdsmi_status_code_to_string(status: object) -> str:
    """Get the meaning of a status code: an int, an AmdSmiRetCode, or the C number that holds one."""
    from ._exceptions import AmdSmiLibraryException, AmdSmiRetCode

    code = getattr(status, "value", status)
    if isinstance(code, bool) or not isinstance(code, int):
        raise AmdSmiParameterException(status, AmdSmiRetCode)
    if code == 0:
        return "AMDSMI_STATUS_SUCCESS - Call succeeded"
    return AmdSmiLibraryException(code).err_info


__all__ = [
    "amdsmi_get_fw_info",
    "amdsmi_get_gpu_accelerator_partition_profile",
    "amdsmi_get_gpu_bdf_id",
    "amdsmi_get_gpu_board_info",
    "amdsmi_get_gpu_compute_partition",
    "amdsmi_get_gpu_driver_info",
    "amdsmi_get_gpu_enumeration_info",
    "amdsmi_get_gpu_id",
    "amdsmi_get_gpu_memory_partition",
    "amdsmi_get_gpu_memory_partition_config",
    "amdsmi_get_gpu_subsystem_id",
    "amdsmi_get_gpu_subsystem_name",
    "amdsmi_get_gpu_vbios_info",
    "amdsmi_get_gpu_vendor_name",
    "amdsmi_get_gpu_virtualization_mode",
    "amdsmi_get_gpu_vram_info",
    "amdsmi_get_gpu_vram_vendor",
    "amdsmi_get_gpu_xcd_counter",
    "amdsmi_get_lib_version",
    "amdsmi_get_rocm_version",
    "amdsmi_get_socket_info",
    "amdsmi_status_code_to_string",
]
