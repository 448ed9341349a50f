"""Shows memory violations, page faults with how long they took, and what was unmapped, until Ctrl-C."""

import gpuev

TYPES = ["VMFAULT", "PAGE_FAULT_START", "PAGE_FAULT_END", "UNMAP_FROM_GPU"]
pairing = gpuev.Pairing()
try:
    for item in gpuev.watch(types=TYPES):
        for fault in pairing.push(item):
            if fault.duration_ns is not None:
                print(f"GPU {fault.gpu.index}: {fault.address:#x} {fault.outcome} in {fault.duration_ns} ns")
        if item.type in ("VMFAULT", "UNMAP_FROM_GPU", None):
            print(f"GPU {item.gpu.index}: {item.message}")
except KeyboardInterrupt:
    print(f"{len(pairing.open)} page faults are open")
