"""A network between this machine and itself that takes its time."""

import asyncio
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit


@contextmanager
def delayed(address: str, seconds: float) -> Generator[str]:
    """Pass everything on to a server, what is sent to it later by some seconds; yield the address.

    A request whose bytes are sent together is late once, and requests on several connections do
    not wait for one another, as on a long line.

    Args:
        address: of the server, `http://127.0.0.1:<port>`.
        seconds: how much later its requests arrive.
    """
    target = urlsplit(address)
    loop = asyncio.new_event_loop()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection(target.hostname, target.port)
        await asyncio.gather(_pass(reader, there[1], seconds), _pass(there[0], writer, 0.0))

    server = loop.run_until_complete(asyncio.start_server(connect, "127.0.0.1", 0))
    port = server.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """Pass bytes on in order, each of them late by the same time."""
    waiting = asyncio.Queue[tuple[float, bytes]]()
    clock = asyncio.get_running_loop().time

    async def send() -> None:
        while True:
            due, content = await waiting.get()
            await asyncio.sleep(max(0.0, due - clock()))
            if not content:
                writer.close()
                return
            writer.write(content)
            await writer.drain()

    async def receive() -> None:
        content = b"begin"
        while content:
            content = await reader.read(1 << 16)
            waiting.put_nowait((clock() + seconds, content))

    with suppress(ConnectionError):
        await asyncio.gather(receive(), send())
