"""Watches the first GPU for ten seconds and cleans up, whatever happens."""

import time

import gpuev

end = time.monotonic() + 10
with gpuev.watch(types=["THERMAL_THROTTLE", "VMFAULT"], gpus=0) as watch:
    while (left := end - time.monotonic()) > 0:
        item = watch.wait(timeout=left)
        if item is not None:
            print(f"{item.type}: {item.message}")
print("closed:", watch.closed)
