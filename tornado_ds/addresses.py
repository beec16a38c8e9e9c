"""Where a request really comes from."""

from collections.abc import Collection
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

# Stands for the address of a peer on a unix socket, which has none, and among trusted
# proxies for all of them.
UNIX = "unix"


class TrustedProxies:
    """The proxies whose X-Forwarded-For is believed: addresses, networks, and `unix`."""

    def __init__(self, networks: Collection[str]) -> None:
        self._trusts_unix = UNIX in networks
        self._networks: list[IPv4Network | IPv6Network] = [
            ip_network(network) for network in networks if network != UNIX
        ]

    def client_address(self, peer: str, forwarded_for: str | None) -> str:
        """
        Return the nearest address that is not a trusted proxy's.

        X-Forwarded-For is read from the right, as far as trusted proxies wrote
        it; what stands further left can be anybody's invention.
        """
        address = peer
        for hop in reversed((forwarded_for or "").split(",")):
            if not self.trusts(address) or not _is_address(hop.strip()):
                break
            address = hop.strip()
        return address

    def trusts(self, address: str) -> bool:
        """True if *address* is one of them."""
        if address == UNIX:
            return self._trusts_unix
        # Mostly there are none, and this is asked several times for each request.
        if not self._networks or not _is_address(address):
            return False
        return any(ip_address(address) in network for network in self._networks)


def network_of(address: str) -> str:
    """
    Return what one customer of a provider has: an IPv4 address, or the /64 of an IPv6 one.

    IPv4 inside IPv6 (`::ffff:192.0.2.1`) is IPv4; what is no address comes back as it is.
    """
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Network((int(parsed), 64), strict=False))


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
