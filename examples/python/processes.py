"""Follows the processes on all GPUs, until Ctrl-C; then says which are still there."""

import gpuev

running = {}
try:
    for event in gpuev.watch(types=["PROCESS_START", "PROCESS_END"]):
        if isinstance(event, gpuev.Gap):
            print(event.message)
            continue
        # Of a process that /proc does not know, the driver's number of the thread is all there is.
        number = event.tid if event.pid is None else event.pid
        name = event.process or event.thread
        process = (event.gpu.index, number)
        if event.type is gpuev.EventType.PROCESS_START:
            running[process] = event
            print(f"GPU {event.gpu.index}: {number} started ({name})")
        else:
            start = running.pop(process, None)
            after = "" if start is None else f" after {(event.time - start.time).total_seconds():.3f} s"
            print(f"GPU {event.gpu.index}: {number} ended ({name}){after}")
except KeyboardInterrupt:
    for gpu, pid in sorted(running):
        print(f"GPU {gpu}: {pid} is still there")
