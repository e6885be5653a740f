"""Draw for long, by an MCP server: mcp_draw.py SERVER PROMPT, as mcp_agent.py has it."""

import asyncio
import json
import os
import sys

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

server, prompt = sys.argv[1:]


def agent():
    if not server.startswith("http"):
        return Client(StdioServerParameters(**json.loads(server)))
    headers = {"Authorization": f"Bearer {os.environ['CROSSMODAL_API_KEY']}"}
    http = httpx2.AsyncClient(headers=headers, timeout=60, trust_env=False)
    return Client(streamable_http_client(server, http_client=http))


async def main():
    async with agent() as client:
        given = {"prompt": prompt, "model": "sketcher", "params": {"steps": 200}}
        await client.call_tool("draw", given)


asyncio.run(main())
