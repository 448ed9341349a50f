"""What the driver knows of memory and bus errors, beside their counts: bad pages, and where errors are found."""

from __future__ import annotations

from .._core import gpu_attribute, gpu_bad_page_threshold, gpu_bad_pages
from ..errors import Error
from ._exceptions import AmdSmiLibraryException, AmdSmiParameterException, AmdSmiRetCode
from ._identity import present
from ._session import library_exception, not_supported
from ._types import AmdSmiGpuBlock, AmdSmiMemoryPageStatus, AmdSmiRasErrState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Union

    from .._core import processor_handle

_STATUSES = {
    "reserved": AmdSmiMemoryPageStatus.RESERVED,
    "pending": AmdSmiMemoryPageStatus.PENDING,
    "unreservable": AmdSmiMemoryPageStatus.UNRESERVABLE,
}


def amdsmi_get_gpu_bad_page_info(processor_handle: processor_handle) -> List[Dict[str, int]]:
    """
    Get the pages of VRAM that went bad.

    Returns:
    - list of dicts: value (place in the list), page_address, page_size, status (as in AmdSmiMemoryPageStatus)

    Raises:
    - AmdSmiLibraryException: NOT_SUPPORTED if the GPU keeps no list
    """
    pages = gpu_bad_pages(present(processor_handle))
    if pages is None:
        raise not_supported()
    return [
        {
            "value": place,
            "page_address": page["page"],
            "page_size": page["size"],
            "status": int(_STATUSES[page["status"]]),
        }
        for place, page in enumerate(pages)
    ]


def amdsmi_get_gpu_memory_reserved_pages(
    processor_handle: processor_handle,
) -> List[Dict[str, int]]:
    """As `amdsmi_get_gpu_bad_page_info`."""
    return amdsmi_get_gpu_bad_page_info(processor_handle)


def amdsmi_get_gpu_ecc_enabled(processor_handle: processor_handle) -> int:
    """
    Get in which blocks errors are counted.

    Returns:
    - int: bits of AmdSmiGpuBlock

    Raises:
    - AmdSmiLibraryException: NOT_SUPPORTED if the GPU does not count
    """
    text = gpu_attribute(present(processor_handle), "ras/features") or ""
    try:
        return int(text.partition("feature mask:")[2].split()[0], 16)
    except (IndexError, ValueError):
        raise not_supported() from None


def amdsmi_get_gpu_ecc_status(
    processor_handle: processor_handle, block: AmdSmiGpuBlock
) -> AmdSmiRasErrState:
    """
    Get whether errors are counted in a block: AmdSmiRasErrState ENABLED or DISABLED.

    Raises:
    - AmdSmiParameterException: If a parameter is not valid
    - AmdSmiLibraryException: INVAL for INVALID, NOT_SUPPORTED if the GPU does not count
    """
    mask = amdsmi_get_gpu_ecc_enabled(processor_handle)
    if not isinstance(block, AmdSmiGpuBlock):
        raise AmdSmiParameterException(block, AmdSmiGpuBlock)
    if not block:
        raise AmdSmiLibraryException(AmdSmiRetCode.INVAL)
    state: AmdSmiRasErrState = AmdSmiRasErrState["ENABLED" if mask & block else "DISABLED"]
    return state


def amdsmi_get_gpu_ras_block_features_enabled(
    processor_handle: processor_handle,
) -> List[Dict[str, str]]:
    """
    Get for each block whether errors are counted in it.

    Returns:
    - list of dicts: block (str), status ("ENABLED" or "DISABLED")
    """
    mask = amdsmi_get_gpu_ecc_enabled(processor_handle)
    blocks = [block for block in AmdSmiGpuBlock if block.name not in ("INVALID", "RESERVED")]
    return [
        {"block": block.name, "status": "ENABLED" if mask & block else "DISABLED"}
        for block in blocks
    ]


def _hex(handle: processor_handle, file: str) -> int:
    """The number at the end of a line as `schema: 0x1`."""
    text = gpu_attribute(present(handle), file) or ""
    try:
        return int(text.rpartition(":")[2], 16)
    except ValueError:
        raise not_supported() from None


def amdsmi_get_gpu_ras_feature_info(
    processor_handle: processor_handle,
) -> Dict[str, Union[str, bool]]:
    """
    Get how errors are found, and which table the driver keeps of bad pages.

    Returns:
    - dict: eeprom_version ("0x10000"), parity_schema, single_bit_schema, double_bit_schema, poison_schema (bool)

    Raises:
    - AmdSmiLibraryException: NOT_SUPPORTED if the driver does not say
    """
    version, schema = (_hex(processor_handle, file) for file in ("ras/version", "ras/schema"))
    return {
        "eeprom_version": hex(version),
        "parity_schema": bool(schema & 1),
        "single_bit_schema": bool(schema & 2),
        "double_bit_schema": bool(schema & 4),
        "poison_schema": bool(schema & 8),
    }


def amdsmi_get_gpu_bad_page_threshold(processor_handle: processor_handle) -> int:
    """
    Get with how many bad pages the driver gives the GPU up. Only root may ask.

    Raises:
    - AmdSmiLibraryException: NO_PERM without privileges, NOT_SUPPORTED if the driver does not say
    """
    try:
        threshold = gpu_bad_page_threshold(present(processor_handle))
    except Error as error:
        raise library_exception(error) from error
    if threshold is None:
        raise not_supported()
    return threshold


__all__ = [
    "amdsmi_get_gpu_bad_page_info",
    "amdsmi_get_gpu_bad_page_threshold",
    "amdsmi_get_gpu_ecc_enabled",
    "amdsmi_get_gpu_ecc_status",
    "amdsmi_get_gpu_memory_reserved_pages",
    "amdsmi_get_gpu_ras_block_features_enabled",
    "amdsmi_get_gpu_ras_feature_info",
]
