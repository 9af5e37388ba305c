"""What Python 2 cannot parse. Imported by python_scenes.py; its module code is the scene "import"."""

import asyncio

from python_probe import check

check("import")


class Umlaut:
    def größe(self):
        return check("latin-1")

    def имя(self):
        return check("ucs2")


async def coroutine():
    await asyncio.sleep(0)
    return check("coroutine")


async def outer():
    await coroutine()
    await asyncio.gather(coroutine(), coroutine())
    async for _ in async_generator():
        check("async for")
    return await asyncio.get_event_loop().run_in_executor(None, check, "executor")


async def async_generator():
    yield check("async generator")
    await asyncio.sleep(0)
    yield check("async generator")


def delegating():
    yield from (check("yield from") for _ in range(2))


def run():
    Umlaut().größe()
    Umlaut().имя()
    list(delegating())
    loop = asyncio.new_event_loop()
    loop.run_until_complete(outer())
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
