"""Runs with the Python of an installation, in a network namespace of its own: are exactly the packets counted that are
sent? Prints what was counted, as JSON; ends with 1 if it is not what was sent."""

import json
import socket
import subprocess
import sys
import time

import wiremeter

PACKETS = 1234
PAYLOAD = b"x" * 100
FRAME = 14 + 20 + 8 + len(PAYLOAD)
PATIENCE_SECONDS = 30


def meters_exactly() -> bool:
    """Prints what was counted; returns whether it is what was sent."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    counted = {"rx": [0, 0], "tx": [0, 0]}
    with wiremeter.Monitor("lo", interval=0.2, filter="udp and port 9") as monitor:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for _ in range(PACKETS):
                sender.sendto(PAYLOAD, ("127.0.0.1", 9))
        deadline = time.monotonic() + PATIENCE_SECONDS
        for batch in monitor:
            for attachment in batch.attachments:
                flows = batch.flows[batch.flows["attachment"] == attachment.id]
                counted[attachment.direction][0] += int(flows["packets"].sum())
                counted[attachment.direction][1] += int(flows["bytes"].sum())
            if not len(batch.flows) or time.monotonic() > deadline:
                break  # an interval without any: all that was sent was counted, or never will be
    right = all(each == [PACKETS, PACKETS * FRAME] for each in counted.values())
    print(json.dumps({"version": wiremeter.__version__, "sent": [PACKETS, PACKETS * FRAME], **counted, "right": right}))
    return right


if __name__ == "__main__":
    sys.exit(not meters_exactly())
