#!/usr/bin/env python3
"""Somebody between a client and fabricd, on the control connection: passes frames on and changes what it is told to.

usage: between.py SERVER_PORT WHAT    prints the port it listens on; serves one connection
WHAT: pass | hello-plain | challenge-plain | flip-welcome | flip-status | cut-status
"""
import socket, struct, sys, threading

HEAD = 12
HELLO, CHALLENGE, WELCOME, STATUS_REPLY, SEALED = 1, 2, 4, 11, 0x8000


def read(s, n):
    data = b""
    while len(data) < n:
        more = s.recv(n - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def flip(frame, at):
    return frame[:at] + bytes([frame[at] ^ 1]) + frame[at + 1:]


def change(what, kind, frame):
    if what == "hello-plain" and kind == HELLO:  # security stands before the last 32 bytes
        return frame[:-36] + struct.pack("<I", 0) + frame[-32:]
    if what == "challenge-plain" and kind == CHALLENGE:
        return frame[:-36] + struct.pack("<I", 0) + frame[-32:]
    if what == "flip-welcome" and kind == WELCOME:
        return flip(frame, HEAD + 40)
    if kind == STATUS_REPLY:
        if what == "flip-status":
            return flip(frame, HEAD + 5)
        if what == "cut-status":
            return frame[:8] + struct.pack("<I", len(frame) - HEAD - 4) + frame[HEAD:-4]
    return frame


def carry(what, source, sink):
    try:
        while True:
            head = read(source, HEAD)
            _, _, kind, size = struct.unpack("<IHHI", head)
            sink.sendall(change(what, kind & ~SEALED, head + read(source, size)))
    except (EOFError, OSError):
        for s in (source, sink):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
client, _ = listener.accept()
server = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
back = threading.Thread(target=carry, args=(sys.argv[2], server, client))
back.start()
carry(sys.argv[2], client, server)
back.join()
