"""The same as a server of the MCP SDK with its HTTP client, one tool that reports.

mcp_server.py URL KEY
"""

from __future__ import annotations

import sys

import httpx2
from mcp.server.mcpserver import MCPServer

URL, KEY = sys.argv[1:3]
server = MCPServer("reports", log_level="ERROR")
client = httpx2.AsyncClient(
    limits=httpx2.Limits(max_connections=300, max_keepalive_connections=300), timeout=30
)


@server.tool()
async def report(task_id: int) -> str:
    """Report one task."""
    answer = await client.post(
        f"{URL}/reportIncorrectImageCaptcha", json={"clientKey": KEY, "taskId": task_id}
    )
    return answer.text


server.run("stdio")
