"""Prints every event of every GPU, and at Ctrl-C how many there were of each type."""

from collections import Counter

import gpuev

counts = Counter()
try:
    for item in gpuev.watch():
        counts[item.gpu.index, item.type or "lost"] += 1
        print(f"{item.time:%H:%M:%S.%f} GPU {item.gpu.index}: {item.type}: {item.message}")
except KeyboardInterrupt:
    for (gpu, type), count in sorted(counts.items()):
        print(f"GPU {gpu} had {count} {type}")
