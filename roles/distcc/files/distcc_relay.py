"""From a peer that has come over SSH to the compile server of this host, and back: distcc_relay.py PORT

What the peer has said on its command line is not looked at. The server is that of d1fleet-distcc.service,
with its user, its list of compilers, and all that confines it; `distccd --inetd` would run as the user who
has logged in, unconfined, and sees only once a second whether a compiler has ended. Needs Python 3.9.
"""

import os
import selectors
import socket
import sys

PIECE = 1 << 16
LIMIT_S = 4.0
"""To connect: as long as distcc's clients wait."""


def relay(server, inward=0, outward=1):
    """Until the server has said all. The end of the input is passed on: the server ends a compiler then."""
    with selectors.PollSelector() as waiting:
        waiting.register(server, selectors.EVENT_READ)
        waiting.register(inward, selectors.EVENT_READ)
        while True:
            for key, _ in waiting.select():
                if key.fileobj is server:
                    data = server.recv(PIECE)
                    if not data:
                        return
                    write(outward, data)
                else:
                    data = os.read(inward, PIECE)
                    if data:
                        server.sendall(data)
                    else:
                        waiting.unregister(inward)
                        server.shutdown(socket.SHUT_WR)


def write(fd, data):
    while data:
        data = data[os.write(fd, data) :]


def main(port):
    # sshd may have left them so for whoever had them before.
    for fd in (0, 1):
        os.set_blocking(fd, True)
    try:
        server = socket.create_connection(("127.0.0.1", int(port)), LIMIT_S)
    except OSError as error:
        return f"d1fleet: distcc does not answer on this host: {error.strerror or error}"
    server.settimeout(None)
    with server:
        try:
            relay(server)
        except (BrokenPipeError, ConnectionResetError):
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
