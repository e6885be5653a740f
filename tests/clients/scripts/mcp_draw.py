"""Draw by an MCP server of one's own, for long: mcp_draw.py COMMAND PROMPT"""

import asyncio
import json
import sys

from mcp import Client, StdioServerParameters


async def main():
    async with Client(StdioServerParameters(**json.loads(sys.argv[1]))) as client:
        given = {"prompt": sys.argv[2], "model": "sketcher", "params": {"steps": 200}}
        await client.call_tool("draw", given)


asyncio.run(main())
