"""Says when the first GPU throttles, and why, until Ctrl-C."""

import gpuev

count = 0
try:
    for event in gpuev.watch(types="THERMAL_THROTTLE", gpus=0):
        if isinstance(event, gpuev.Gap):
            print(event.message)
            continue
        count += 1
        print(f"{event.time:%H:%M:%S} throttled by {', '.join(event.reasons)}; {event.count} times so far")
except KeyboardInterrupt:
    print(f"{count} thermal events")
