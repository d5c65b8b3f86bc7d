"""A plain streaming proxy, as one writes it with aiohttp.

python -m tests.bench.aiohttp_proxy URL PORT
"""

import sys

import aiohttp
import uvloop
from aiohttp import web


OWN = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}


def passed_on(headers):
    return {name: value for name, value in headers.items() if name.lower() not in OWN}


async def application(upstream):
    async def session(_app):
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as client:
            app["client"] = client
            yield

    async def handle(request):
        body, headers = await request.read(), passed_on(request.headers)
        url = upstream + request.path_qs
        async with app["client"].request(request.method, url, data=body, headers=headers) as answer:
            length = answer.headers.get("Content-Length")
            response = web.StreamResponse(status=answer.status, headers=passed_on(answer.headers))
            response.content_length = int(length) if length else None
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
            return response

    app = web.Application(client_max_size=2**26)
    app.cleanup_ctx.append(session)
    app.router.add_route("*", "/{path:.*}", handle)
    return app


if __name__ == "__main__":
    uvloop.install()
    web.run_app(
        application(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), print=None,
        access_log=None,
    )  # fmt: skip
