"""By which rules the driver runs a GPU: performance level, overdrive, power profile, policies."""

from __future__ import annotations

import re

from .._core import gpu_attribute
from ._exceptions import AmdSmiParameterException
from ._identity import present
from ._session import not_supported
from ._types import AmdSmiPowerProfilePresetMasks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, List

    from .._core import processor_handle


def number(handle: processor_handle, file: str) -> int:
    """The decimal number in a file of the GPU; raises NOT_SUPPORTED where there is none."""
    text = gpu_attribute(present(handle), file) or ""
    if not text.isdecimal():
        raise not_supported()
    return int(text)


_LEVELS = {
    "auto": "AUTO",
    "low": "LOW",
    "high": "HIGH",
    "manual": "MANUAL",
    "profile_standard": "STABLE_STD",
    "profile_peak": "STABLE_PEAK",
    "profile_min_mclk": "STABLE_MIN_MCLK",
    "profile_min_sclk": "STABLE_MIN_SCLK",
    "perf_determinism": "DETERMINISM",
}


def amdsmi_get_gpu_perf_level(processor_handle: processor_handle) -> str:
    """Get by what rule clocks are chosen, as "AMDSMI_DEV_PERF_LEVEL_AUTO"."""
    text = gpu_attribute(present(processor_handle), "power_dpm_force_performance_level")
    if text is None:
        raise not_supported()
    return f"AMDSMI_DEV_PERF_LEVEL_{_LEVELS.get(text, 'UNKNOWN')}"


def amdsmi_get_gpu_overdrive_level(processor_handle: processor_handle) -> int:
    """Get by how many percent the graphics clock may exceed its own limit."""
    return number(processor_handle, "pp_sclk_od")


def amdsmi_get_gpu_mem_overdrive_level(processor_handle: processor_handle) -> int:
    """Get by how many percent the memory clock may exceed its own limit."""
    return number(processor_handle, "pp_mclk_od")


def amdsmi_is_gpu_power_management_enabled(processor_handle: processor_handle) -> bool:
    """Get whether the driver manages the GPU's clocks and power."""
    return gpu_attribute(present(processor_handle), "power_dpm_force_performance_level") is not None


# The driver's names, and the bit of the vendor's.
_PROFILES = {
    "BOOTUP_DEFAULT": AmdSmiPowerProfilePresetMasks.BOOTUP_DEFAULT,
    "3D_FULL_SCREEN": AmdSmiPowerProfilePresetMasks.THREE_D_FULL_SCR_MASK,
    "POWER_SAVING": AmdSmiPowerProfilePresetMasks.POWER_SAVING_MASK,
    "VIDEO": AmdSmiPowerProfilePresetMasks.VIDEO_MASK,
    "VR": AmdSmiPowerProfilePresetMasks.VR_MASK,
    "COMPUTE": AmdSmiPowerProfilePresetMasks.COMPUTE_MASK,
    "CUSTOM": AmdSmiPowerProfilePresetMasks.CUSTOM_MASK,
}
# A profile a line, or all in one line, by generation: `1 3D_FULL_SCREEN *:`. The current one is starred.
_PROFILE = re.compile(r"(?<!\S)\d+\s+([A-Z0-9_]+)\s*(\*?)")


def amdsmi_get_gpu_power_profile_presets(
    processor_handle: processor_handle, sensor_idx: int
) -> Dict[str, int]:
    """
    Get the power profiles that the GPU has, and the one in use.

    Parameters:
    - sensor_idx (int): 0

    Returns:
    - dict: available_profiles and current (bits of AmdSmiPowerProfilePresetMasks), num_profiles (how many of these
      the GPU has)

    Raises:
    - AmdSmiParameterException: If a parameter is not valid
    - AmdSmiLibraryException: NOT_SUPPORTED if the GPU has no profiles, or one in use that has no bit
    """
    text = gpu_attribute(present(processor_handle), "pp_power_profile_mode") or ""
    if not isinstance(sensor_idx, int) or isinstance(sensor_idx, bool):
        raise AmdSmiParameterException(sensor_idx, int)
    found = {name: star for name, star in _PROFILE.findall(text) if name in _PROFILES}
    current = [name for name, star in found.items() if star]
    if sensor_idx != 0 or len(current) != 1:
        raise not_supported()
    return {
        "available_profiles": sum(_PROFILES[name] for name in found),
        "current": int(_PROFILES[current[0]]),
        "num_profiles": len(found),
    }


_POLICY = re.compile(r"(\d+)\s*:\s*([^*\s]+)\s*(\*?)")


def _policies(handle: processor_handle, file: str, key: str) -> Dict[str, Any]:
    text = gpu_attribute(present(handle), f"pm_policy/{file}") or ""
    matches = [found for found in map(_POLICY.match, map(str.strip, text.splitlines())) if found]
    policies: List[Dict[str, Any]] = [
        {"policy_id": int(found[1]), "policy_description": found[2]} for found in matches
    ]
    current = [int(found[1]) for found in matches if found[3]]
    if len(current) != 1:
        raise not_supported()
    return {"num_supported": len(policies), "current_id": current[0], key: policies}


def amdsmi_get_soc_pstate(processor_handle: processor_handle) -> Dict[str, Any]:
    """
    Get the policies by which the clocks of the whole package are chosen, and the one in use.

    Returns:
    - dict: num_supported (int), current_id (int), policies (list of dicts): policy_id (int), policy_description (str)

    Raises:
    - AmdSmiLibraryException: NOT_SUPPORTED if the GPU has none
    """
    return _policies(processor_handle, "soc_pstate", "policies")


def amdsmi_get_xgmi_plpd(processor_handle: processor_handle) -> Dict[str, Any]:
    """
    Get the policies by which XGMI links save power, and the one in use.

    Returns:
    - dict: num_supported (int), current_id (int), plpds (list of dicts): policy_id (int), policy_description (str)

    Raises:
    - AmdSmiLibraryException: NOT_SUPPORTED if the GPU has none
    """
    return _policies(processor_handle, "xgmi_plpd", "plpds")


__all__ = [
    "amdsmi_get_gpu_mem_overdrive_level",
    "amdsmi_get_gpu_overdrive_level",
    "amdsmi_get_gpu_perf_level",
    "amdsmi_get_gpu_power_profile_presets",
    "amdsmi_get_soc_pstate",
    "amdsmi_get_xgmi_plpd",
    "amdsmi_is_gpu_power_management_enabled",
]
