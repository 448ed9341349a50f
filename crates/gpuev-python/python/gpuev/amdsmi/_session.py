"""Initialisation, and what each function of the documented API checks first."""

from __future__ import annotations

from .._core import driver_info, initialize, is_initialized, list_gpus, shut_down
from .._core import processor_handle
from ..errors import Error, NoGpuError
from . import _units
from ._exceptions import AmdSmiLibraryException, AmdSmiParameterException, AmdSmiRetCode
from ._types import AmdSmiInitFlags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import List

    from .._core import Gpu, Sensors

_CODES = {
    "NoGpuError": AmdSmiRetCode.FILE_ERROR,
    "PermissionDeniedError": AmdSmiRetCode.NO_PERM,
    "NotSupportedError": AmdSmiRetCode.NOT_SUPPORTED,
    "GpuRemovedError": AmdSmiRetCode.NOT_FOUND,
    "InvalidInputError": AmdSmiRetCode.INVAL,
    "StoppedError": AmdSmiRetCode.NOT_INIT,
    "OutOfResourcesError": AmdSmiRetCode.OUT_OF_RESOURCES,
}


def library_exception(error: Error) -> AmdSmiLibraryException:
    """The documented exception for `error`."""
    return AmdSmiLibraryException(_CODES.get(type(error).__name__, AmdSmiRetCode.IO))


def not_supported() -> AmdSmiLibraryException:
    """Code 2, for what a GPU does not have or tell."""
    return AmdSmiLibraryException(AmdSmiRetCode.NOT_SUPPORTED)


def check_initialized() -> None:
    """Raises code 32 before `amdsmi_init`."""
    if not is_initialized():
        raise AmdSmiLibraryException(AmdSmiRetCode.NOT_INIT)


def all_gpus() -> List[Gpu]:
    """The GPUs of the machine; none is no error."""
    check_initialized()
    try:
        return list_gpus()
    except NoGpuError:
        return []
    except Error as error:
        raise library_exception(error) from error


def gpu_of(handle: processor_handle) -> Gpu:
    """The GPU that `handle` stands for."""
    check_initialized()
    if not isinstance(handle, processor_handle):
        raise AmdSmiParameterException(handle, processor_handle)
    return handle.gpu


def sensors_of(handle: processor_handle) -> Sensors:
    """What the GPU that `handle` stands for tells of itself; raises code 31 where it is gone."""
    sensors = gpu_of(handle).sensors
    if not sensors.present:
        raise AmdSmiLibraryException(AmdSmiRetCode.NOT_FOUND)
    return sensors


def amdsmi_init(flag: AmdSmiInitFlags = AmdSmiInitFlags.INIT_AMD_GPUS) -> None:
    """
    Initialize the library.

    May be called more than once; as many calls of `amdsmi_shut_down` end it.

    Parameters:
    - flag (AmdSmiInitFlags): What to look at. AMD GPUs, whatever is asked for.

    Raises:
    - AmdSmiParameterException: If flag is not an AmdSmiInitFlags
    - AmdSmiLibraryException: Code 34 (DRIVER_NOT_LOADED) where there is no amdgpu driver, as under WSL; code 1 if
      GPUEV_AMDSMI_UNITS names units that do not exist

    Note:
    - A machine whose driver has no GPU is no error: `amdsmi_get_processor_handles` gives an empty list
    """
    if not isinstance(flag, AmdSmiInitFlags):
        raise AmdSmiParameterException(flag, AmdSmiInitFlags)
    try:
        _units.units()
    except ValueError as error:
        raise AmdSmiLibraryException(AmdSmiRetCode.INVAL) from error
    if not is_initialized():
        _check_driver()
    initialize()


def _check_driver() -> None:
    """Raises code 34 where there is neither the driver nor its list of GPUs."""
    if driver_info()["loaded"]:
        return
    try:
        list_gpus()
    except NoGpuError as error:
        raise AmdSmiLibraryException(AmdSmiRetCode.DRIVER_NOT_LOADED) from error
    except Error:
        # There is a list: each function says what is wrong with it.
        return


def amdsmi_shut_down() -> None:
    """
    End the use of the library.

    With the last of as many calls as there were of `amdsmi_init`, readers that are still open are stopped.

    Raises:
    - AmdSmiLibraryException: Code 32 if the library is not initialized
    """
    last = shut_down()
    if last is None:
        raise AmdSmiLibraryException(AmdSmiRetCode.NOT_INIT)
    if last:
        from ._reader import stop_all

        stop_all()
