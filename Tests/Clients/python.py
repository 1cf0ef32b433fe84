"""What caio and aiofile are used for, each read checked: python.py MODE COUNT, in an empty folder."""

import asyncio
import os
import random
import sys

import caio.linux_aio
import caio.linux_aio_asyncio
from aiofile import async_open, AIOFile, Writer

BLOCK = 4096


def pattern(index):
    return bytes((index * 31 + i * 7) % 256 for i in range(64)) * (BLOCK // 64)


async def blocks(count):
    """caio: blocks written at once in random order, read back at once, then read by the system."""
    descriptor = os.open("blocks", os.O_RDWR | os.O_CREAT)
    async with caio.linux_aio_asyncio.AsyncioContext(max_requests=64) as context:
        order = random.sample(range(count), count)
        written = await asyncio.gather(
            *(context.write(pattern(i), descriptor, i * BLOCK) for i in order))
        assert written == [BLOCK] * count
        await context.fdsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        order = random.sample(range(count), count)
        read = await asyncio.gather(*(context.read(BLOCK, descriptor, i * BLOCK) for i in order))
        for index, data in zip(order, read):
            assert data == pattern(index), f"block {index} is wrong"
        await context.fsync(descriptor)
    for index in range(count):
        assert os.pread(descriptor, BLOCK, index * BLOCK) == pattern(index)
    os.close(descriptor)


async def errors(count):
    """caio: what the system refuses comes back as an exception, and the context goes on."""
    descriptor = os.open("readable", os.O_RDONLY | os.O_CREAT)
    async with caio.linux_aio_asyncio.AsyncioContext(max_requests=8) as context:
        for _ in range(count):
            try:
                await context.write(b"x", descriptor, 0)
            except (OSError, ValueError):
                pass
            else:
                raise AssertionError("a write to a file that is open for reading went through")
            assert await context.read(16, descriptor, 0) == b""
    os.close(descriptor)


async def files(count):
    """aiofile: many files, each written and read back, while others are under way."""
    async def one(index):
        lines = [f"{index} {line}\n" for line in range(200)]
        async with async_open(f"file{index}", "w+") as file:
            for line in lines:
                await file.write(line)
            file.seek(0)
            assert await file.read() == "".join(lines)
        async with async_open(f"file{index}", "r") as file:
            assert [line async for line in file] == lines
        with open(f"file{index}") as file:
            assert file.readlines() == lines

    for start in range(0, count, 16):
        await asyncio.gather(*(one(i) for i in range(start, min(start + 16, count))))


async def append(count):
    """aiofile: a writer that keeps its place, with fsync."""
    async with AIOFile("log", "wb") as file:
        writer = Writer(file)
        for index in range(count):
            await writer(pattern(index))
            if index % 16 == 0:
                await file.fsync()
    with open("log", "rb") as file:
        for index in range(count):
            assert file.read(BLOCK) == pattern(index)


assert os.environ["CAIO_IMPL"] == "linux"
asyncio.run({"blocks": blocks, "errors": errors, "files": files, "append": append}[sys.argv[1]](
    int(sys.argv[2])))
