"""No connection at all, in every process that has this folder on its path: what is tried is noted
in the folder that FW_TEST_CONNECTIONS names, with the processes that were watched."""

import os
import socket
import sys
import traceback
from pathlib import Path

NOTES = Path(os.environ["FW_TEST_CONNECTIONS"])
LOOKUPS = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")
CONNECTIONS = ("socket.connect", "socket.sendto", "socket.sendmsg")


def refuse(event: str, args: tuple) -> None:
    if event in CONNECTIONS:
        if args[0].family == getattr(socket, "AF_UNIX", None):
            return
    elif event not in LOOKUPS:
        return
    with (NOTES / "tried").open("a", encoding="utf-8") as file:
        file.write(f"{event} {args[-1] if event in CONNECTIONS else args[0]}\n")
        file.writelines(traceback.format_stack(limit=15))
    raise OSError("no connection is allowed here")


sys.addaudithook(refuse)
(NOTES / f"watched-{os.getpid()}").touch()
