# The yardstick: the least that a trio server does to answer MessagePack-RPC. It looks nothing up and asks nobody's
# permission; it packs the very answer that brokerd gave. `python -m bench.bare SOCKET`, the answer on stdin.
from __future__ import annotations

import socket
import sys

import msgpack
import trio


def main() -> None:
    path, answer = sys.argv[1], msgpack.unpackb(sys.stdin.buffer.read())
    trio.run(serve, path, answer)


async def serve(path: str, answer: object) -> None:
    """Answer every request on every connection with `answer`, for ever."""
    pack = msgpack.Packer().pack

    async def talk(stream: trio.SocketStream) -> None:
        unpacker = msgpack.Unpacker()
        try:
            async for data in stream:
                unpacker.feed(data)
                for message in unpacker:
                    await stream.send_all(pack((1, message[1], None, answer)))
        except trio.BrokenResourceError:
            pass  # the client went away

    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    listener.listen(1024)
    await trio.serve_listeners(talk, [trio.SocketListener(trio.socket.from_stdlib_socket(listener))])


if __name__ == "__main__":
    main()
