"""Follows the processes on all GPUs, until Ctrl-C; then says which are still there."""

import gpuev

running = {}
try:
    for event in gpuev.watch(types=["PROCESS_START", "PROCESS_END"]):
        if isinstance(event, gpuev.Gap):
            print(event.message)
            continue
        process = (event.gpu.index, event.pid)
        if event.type is gpuev.EventType.PROCESS_START:
            running[process] = event
            print(f"GPU {event.gpu.index}: {event.pid} started ({event.process})")
        else:
            start = running.pop(process, None)
            after = "" if start is None else f" after {(event.time - start.time).total_seconds():.3f} s"
            print(f"GPU {event.gpu.index}: {event.pid} ended ({event.process}){after}")
except KeyboardInterrupt:
    for gpu, pid in sorted(running):
        print(f"GPU {gpu}: {pid} is still there")
