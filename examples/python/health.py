"""When a GPU throttles or is reset, shows how it is, until Ctrl-C."""

import gpuev

gpus = {gpu.index: gpu for gpu in gpuev.list_gpus()}
try:
    for item in gpuev.watch(types=["THERMAL_THROTTLE", "GPU_PRE_RESET", "GPU_POST_RESET"]):
        sensors = gpus[item.gpu.index].sensors
        edge = sensors.temperature(0)  # thousandths of a degree Celsius; None where there is no sensor
        power = sensors.power()["average"]  # microwatts
        busy = sensors.activity()["gfx"]  # percent
        state = [
            "no temperature" if edge is None else f"{edge / 1000:.1f} °C",
            "no power" if power is None else f"{power / 1e6:.1f} W",
            "no activity" if busy is None else f"{busy} % busy",
        ]
        print(f"GPU {item.gpu.index}: {item.message}: {', '.join(state)}")
except KeyboardInterrupt:
    pass
