"""An asyncio server: each connection is answered, a tenth of them after a look into a file in a thread."""

import asyncio
import sys
from itertools import count


def look() -> bytes:
    with open("/etc/passwd", "rb") as file:
        return file.read(100)


async def main() -> None:
    number = count()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readline()
            if next(number) % 10 == 0:
                writer.write(await asyncio.to_thread(look))
            writer.write(b"HTTP/1.0 200 OK\r\n\r\nhello\n")
            await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    async with server:
        await server.serve_forever()


asyncio.run(main())
