"""A browser as far as logging in and out goes."""

import asyncio

from benchmarks.load.client import Answer, Connection
from benchmarks.people import PASSWORD
from benchmarks.programs import OurServer
from benchmarks.traffic import login_request
from tests.forgeries import sid_of
from torture.requests import post_request


class Browser(Connection):
    """One connection of somebody who logs in; the newest token is in `token`."""

    def __init__(self) -> None:
        super().__init__()
        self.token = ""

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"set-cookie" and value.startswith(b"access_token="):
            self.token = value.partition(b"=")[2].partition(b";")[0].decode()

    async def log_in(self, name: str, server: OurServer, *, address: str) -> Answer:
        """Log in as *name*."""
        return await self._ask(login_request(name, PASSWORD, server.url, address=address))

    async def log_out(self, server: OurServer) -> Answer:
        """Log out."""
        headers = [f"Cookie: access_token={self.token}", f"Origin: {server.url}"]
        host = server.url.removeprefix("http://")
        request = post_request("/logout", b"{}", "application/json", *headers, host=host)
        return await self._ask(request)

    @property
    def sid(self) -> str:
        """The session of the token."""
        return sid_of(self.token)

    async def _ask(self, request: bytes) -> Answer:
        # Not wait_for, which can lose a cancellation in Python 3.11.
        async with asyncio.timeout(10):
            return await self.ask(request)
