"""Follows resets of all GPUs, and says how long each took, until Ctrl-C."""

import gpuev

try:
    with gpuev.watch(types=["GPU_PRE_RESET", "GPU_POST_RESET"]) as watch:
        for span in gpuev.spans(watch):
            took = "no end seen" if span.duration is None else f"{span.duration.total_seconds():.6f} s"
            print(f"GPU {span.gpu.index}: reset {span.sequence}, {span.cause}, {span.outcome}: {took}")
except KeyboardInterrupt:
    pass
