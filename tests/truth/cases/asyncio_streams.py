"""asyncio on both sides: one thread, many connections, reads that take what is there."""

import asyncio

import log


async def serve(listener, connections):
    listener.setblocking(False)
    done = asyncio.Semaphore(0)

    async def handle(reader, writer):
        while line := await reader.readline():
            writer.write(line[::-1].strip() + b"\n")
            await writer.drain()
        writer.close()
        await writer.wait_closed()
        done.release()

    async with await asyncio.start_server(handle, sock=listener):
        for _ in range(connections):
            await done.acquire()


async def client(number, address):
    connection = log.connect(address)
    connection.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=connection)
    for i in range(20):
        for part in range(3):  # three lines at a time: their answers may come together
            writer.write(b"line %d.%d of client %d\n" % (i, part, number))
        for _ in range(3):
            await reader.readline()
    writer.close()
    await writer.wait_closed()


async def clients(address):
    await asyncio.gather(*(client(number, address) for number in range(12)))


def run():
    listener = log.listen()
    server = log.spawn(lambda: asyncio.run(serve(listener, 12)))
    asyncio.run(clients(listener.getsockname()))
    log.wait(server)
