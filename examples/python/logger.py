"""Writes every event and gap to gpu_events.jsonl as it comes, until Ctrl-C: the JSON of docs/event-schema.md."""

import gpuev

with open("gpu_events.jsonl", "a") as log:
    try:
        for number, item in enumerate(gpuev.watch(), 1):
            print(item.to_json(), file=log, flush=True)
            print(f"{number} in gpu_events.jsonl", end="\r")
    except KeyboardInterrupt:
        print("the log is complete")
