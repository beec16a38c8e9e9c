"""Where a request really comes from."""

from collections.abc import Collection
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network


class TrustedProxies:
    """The proxies whose X-Forwarded-For is believed."""

    def __init__(self, networks: Collection[str]) -> None:
        self._networks: list[IPv4Network | IPv6Network] = [ip_network(network) for network in networks]

    def client_address(self, peer: str, forwarded_for: str | None) -> str:
        """
        Return the nearest address that is not a trusted proxy's.

        X-Forwarded-For is read from the right, as far as trusted proxies wrote
        it; what stands further left can be anybody's invention.
        """
        address = peer
        for hop in reversed((forwarded_for or "").split(",")):
            if not self._trusts(address) or not _is_address(hop.strip()):
                break
            address = hop.strip()
        return address

    def _trusts(self, address: str) -> bool:
        return _is_address(address) and any(ip_address(address) in network for network in self._networks)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
