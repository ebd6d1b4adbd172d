"""`python -m k2_resources.sql_cell FD`: the template, serving the socket that is descriptor FD."""

from __future__ import annotations

import socket
import sys

from k2_resources.sql_cell.cell import serve

if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
