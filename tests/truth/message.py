"""Messages over a stream: four bytes of length, then the payload."""

import struct


def framed(payload):
    return struct.pack("!I", len(payload)) + payload


def send_message(connection, payload):
    connection.sendall(framed(payload))


def recv_exactly(connection, size, at_most=1 << 16):
    """`size` bytes, in as many receives as it takes; None at the stream's end."""
    parts = bytearray()
    while len(parts) < size:
        part = connection.recv(min(size - len(parts), at_most))
        if not part:
            if parts:
                raise EOFError(f"the stream ended after {len(parts)} of {size} bytes")
            return None
        parts += part
    return bytes(parts)


def recv_message(connection, at_most=1 << 16):
    """The next message; None at the stream's end."""
    header = recv_exactly(connection, 4)
    return None if header is None else recv_exactly(connection, struct.unpack("!I", header)[0], at_most) or b""


def recv_to_end(connection, at_most=1 << 16):
    """Everything up to the stream's end, which is received too."""
    parts = []
    while True:
        part = connection.recv(at_most)
        if not part:
            return b"".join(parts)
        parts.append(part)


def answer_all(connection, at_most=1 << 16):
    """Answers each message with itself reversed, until the other end closes; then closes."""
    with connection:
        while (message := recv_message(connection, at_most)) is not None:
            send_message(connection, message[::-1])


def ask(connection, payload):
    """One question, one answer."""
    send_message(connection, payload)
    if recv_message(connection) != payload[::-1]:
        raise ValueError("the answer is not to the question")
