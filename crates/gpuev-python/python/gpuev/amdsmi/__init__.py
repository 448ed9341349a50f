"""The documented Python API of AMD SMI, as far as events and what belongs to them go.

`pip install gpuev-amdsmi` makes it importable as `amdsmi`. `docs/coming-from-amdsmi.md` says what is the same
as in the vendor's package and what is not.
"""

from .._core import processor_handle
from ._exceptions import (
    AmdSmiBdfFormatException,
    AmdSmiException,
    AmdSmiKeyException,
    AmdSmiLibraryException,
    AmdSmiParameterException,
    AmdSmiRetCode,
    AmdSmiRetryException,
    AmdSmiTimeoutException,
)
from ._functions import (
    amdsmi_get_clock_info,
    amdsmi_get_gpu_activity,
    amdsmi_get_gpu_asic_info,
    amdsmi_get_gpu_device_bdf,
    amdsmi_get_gpu_device_uuid,
    amdsmi_get_gpu_ecc_count,
    amdsmi_get_gpu_kfd_info,
    amdsmi_get_gpu_memory_total,
    amdsmi_get_gpu_memory_usage,
    amdsmi_get_gpu_process_list,
    amdsmi_get_gpu_total_ecc_count,
    amdsmi_get_gpu_vram_usage,
    amdsmi_get_power_cap_info,
    amdsmi_get_power_info,
    amdsmi_get_processor_handle_from_bdf,
    amdsmi_get_processor_handles,
    amdsmi_get_processor_type,
    amdsmi_get_socket_handles,
    amdsmi_get_temp_metric,
)
from ._reader import AmdSmiEventReader
from ._session import amdsmi_init, amdsmi_shut_down
from ._types import (
    AmdSmiClkType,
    AmdSmiEvtNotificationType,
    AmdSmiGpuBlock,
    AmdSmiInitFlags,
    AmdSmiMemoryType,
    AmdSmiTemperatureMetric,
    AmdSmiTemperatureType,
)

__all__ = [
    "AmdSmiBdfFormatException",
    "AmdSmiClkType",
    "AmdSmiEventReader",
    "AmdSmiEvtNotificationType",
    "AmdSmiException",
    "AmdSmiGpuBlock",
    "AmdSmiInitFlags",
    "AmdSmiKeyException",
    "AmdSmiLibraryException",
    "AmdSmiMemoryType",
    "AmdSmiParameterException",
    "AmdSmiRetCode",
    "AmdSmiRetryException",
    "AmdSmiTemperatureMetric",
    "AmdSmiTemperatureType",
    "AmdSmiTimeoutException",
    "amdsmi_get_clock_info",
    "amdsmi_get_gpu_activity",
    "amdsmi_get_gpu_asic_info",
    "amdsmi_get_gpu_device_bdf",
    "amdsmi_get_gpu_device_uuid",
    "amdsmi_get_gpu_ecc_count",
    "amdsmi_get_gpu_kfd_info",
    "amdsmi_get_gpu_memory_total",
    "amdsmi_get_gpu_memory_usage",
    "amdsmi_get_gpu_process_list",
    "amdsmi_get_gpu_total_ecc_count",
    "amdsmi_get_gpu_vram_usage",
    "amdsmi_get_power_cap_info",
    "amdsmi_get_power_info",
    "amdsmi_get_processor_handle_from_bdf",
    "amdsmi_get_processor_handles",
    "amdsmi_get_processor_type",
    "amdsmi_get_socket_handles",
    "amdsmi_get_temp_metric",
    "amdsmi_init",
    "amdsmi_shut_down",
    "processor_handle",
]
