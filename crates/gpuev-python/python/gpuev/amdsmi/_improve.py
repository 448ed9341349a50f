"""gpuev's event reader in the vendor's package: the rest stays the vendor's."""

from __future__ import annotations

import sys
from functools import wraps

from .._core import initialize, list_gpus
from .._core import processor_handle as own_handle
from ._exceptions import (
    AmdSmiLibraryException,
    AmdSmiParameterException,
    AmdSmiRetCode,
)
from ._reader import AmdSmiEventReader
from ._types import AmdSmiEvtNotificationType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any, Dict, Iterable, List

    from .._core import processor_handle


def improve(module: ModuleType) -> ModuleType:
    """
    Put gpuev's event reader and event types into a vendor's package `amdsmi`.

    Its handles are taken, and given back in events; its exceptions are raised; all other functions stay its own.
    What reads events was loaded before, by `from amdsmi import AmdSmiEventReader`, stays the vendor's.

    Parameters:
    - module: the vendor's package. gpuev's own is left as it is.

    Returns:
    - module: the same

    Example:
    ```python
    import amdsmi
    import gpuev.amdsmi

    gpuev.amdsmi.improve(amdsmi)
    ```
    """
    if hasattr(module, "use_units") or getattr(module, "_gpuev_reader", None) is not None:
        return module
    reader = _reader_for(module)
    homes = [module, sys.modules.get(f"{module.__name__}.amdsmi_interface")]
    for home in homes:
        if home is not None:
            home.AmdSmiEventReader = reader  # type: ignore[attr-defined]
            home.AmdSmiEvtNotificationType = AmdSmiEvtNotificationType  # type: ignore[attr-defined]
    module._gpuev_reader = reader  # type: ignore[attr-defined]
    # Theirs counts by itself: this library is never shut down.
    initialize()
    return module


def _reader_for(vendor: ModuleType) -> type:
    class VendorsEventReader(AmdSmiEventReader):
        __doc__ = AmdSmiEventReader.__doc__
        __slots__ = ("processor_handle",)

        def __init__(
            self, processor_handle: Any, event_types: Iterable[AmdSmiEvtNotificationType]
        ) -> None:
            # Asks the vendor's library, which raises its own exceptions.
            own = _own(vendor, processor_handle)
            self.processor_handle = processor_handle
            try:
                super().__init__(own, _types(event_types))
            except (AmdSmiLibraryException, AmdSmiParameterException) as error:
                raise _vendors(vendor, error) from error

        @wraps(AmdSmiEventReader.read)
        def read(self, *arguments: Any, **named: Any) -> List[Dict[str, Any]]:  # type: ignore[override]
            try:
                events = super().read(*arguments, **named)
            except (AmdSmiLibraryException, AmdSmiParameterException) as error:
                raise _vendors(vendor, error) from error
            for event in events:
                event["processor_handle"] = self.processor_handle
            return events

    VendorsEventReader.__name__ = VendorsEventReader.__qualname__ = "AmdSmiEventReader"
    return VendorsEventReader


def _types(event_types: Iterable[Any]) -> Any:
    """The types, those of the vendor's enum by their names."""
    try:
        members = list(event_types)
    except TypeError:
        return event_types
    own = []
    for member in members:
        known = getattr(AmdSmiEvtNotificationType, getattr(member, "name", ""), member)
        own.append(known)
        # In the vendor's enum this is the only member for both.
        if known is not member and int(member) != int(known):
            own.append(AmdSmiEvtNotificationType(int(member)))
    return own


def _vendors(vendor: Any, error: Exception) -> Exception:
    if isinstance(error, AmdSmiLibraryException):
        made: Exception = vendor.AmdSmiLibraryException(error.err_code)
        return made
    wrong = error.args[0] if error.args else None
    made = vendor.AmdSmiParameterException(wrong, getattr(error, "expectedType", None), str(error))
    return made


def _own(vendor: Any, handle: Any) -> processor_handle:
    """Our handle of the GPU that the vendor's `handle` stands for: by KFD's number, else by PCI address."""
    bdf = vendor.amdsmi_get_gpu_device_bdf(handle).lower()
    try:
        kfd_id = vendor.amdsmi_get_gpu_kfd_info(handle)["kfd_id"]
    except Exception:  # older packages lack the function, and its fields
        kfd_id = None
    gpus = list_gpus()
    for gpu in gpus:
        if gpu.kfd_id == kfd_id:
            return own_handle.of(gpu)
    # A partition has its number in the last digit of some vendors' addresses.
    place = bdf.rpartition(".")[0]
    for gpu in gpus:
        if gpu.bdf == bdf or gpu.partitions > 1 and gpu.bdf.startswith(f"{place}."):
            return own_handle.of(gpu)
    raise vendor.AmdSmiLibraryException(int(AmdSmiRetCode.NOT_FOUND))
