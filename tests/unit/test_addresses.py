from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_ds.addresses import TrustedProxies

NETWORKS = ["10.0.0.0/8", "127.0.0.1/32", "fd00::/8", "::1/128"]


@pytest.mark.parametrize(
    ("expected", "peer", "forwarded_for"),
    [
        pytest.param("203.0.113.9", "203.0.113.9", None, id="direct"),
        pytest.param("203.0.113.9", "203.0.113.9", "198.51.100.1", id="stranger-with-a-header"),
        pytest.param("203.0.113.9", "203.0.113.9", "10.0.0.1", id="stranger-who-names-a-proxy"),
        pytest.param("10.0.0.1", "10.0.0.1", None, id="proxy-without-a-header"),
        pytest.param("10.0.0.1", "10.0.0.1", "", id="proxy-with-an-empty-header"),
        pytest.param("198.51.100.1", "10.0.0.1", "198.51.100.1", id="one-proxy"),
        pytest.param("198.51.100.1", "10.0.0.1", "1.2.3.4, 198.51.100.1", id="client-invented-a-hop"),
        pytest.param("198.51.100.1", "10.0.0.1", "10.9.9.9, 198.51.100.1", id="client-invented-a-proxy"),
        pytest.param("198.51.100.1", "10.0.0.1", "198.51.100.1, 10.0.0.2", id="two-proxies"),
        pytest.param("198.51.100.1", "10.0.0.1", "1.2.3.4,198.51.100.1 ,\t10.0.0.2", id="blanks-or-not"),
        pytest.param("10.0.0.3", "10.0.0.1", "10.0.0.3, 10.0.0.2", id="client-inside-the-network"),
        pytest.param("10.0.0.2", "10.0.0.1", "unknown, 10.0.0.2", id="stops-at-a-word"),
        pytest.param("10.0.0.1", "10.0.0.1", "198.51.100.1, ", id="stops-at-nothing"),
        pytest.param("10.0.0.1", "10.0.0.1", "198.51.100.1:4711", id="stops-at-a-port"),
        pytest.param("10.0.0.1", "10.0.0.1", "198.51.100", id="stops-at-half-an-address"),
        pytest.param("10.0.0.1", "10.0.0.1", "\ud800", id="stops-at-a-surrogate"),
        pytest.param("2001:db8::7", "::1", "2001:db8::7", id="ipv6"),
        pytest.param("2001:db8::7", "fd00::1", "1.2.3.4, 2001:db8::7, 10.0.0.1", id="both-kinds"),
        pytest.param("::1", "::1", "[2001:db8::7]:443", id="stops-at-brackets"),
        pytest.param("2001:db8::1", "2001:db8::1", "198.51.100.1", id="ipv6-stranger"),
        pytest.param("unix", "unix", "198.51.100.1", id="unix-socket"),
        pytest.param("10.0.0.1", "10.0.0.1", "198.51.100.1, unix", id="stops-at-the-word-for-unix-sockets"),
        pytest.param("", "", "198.51.100.1", id="no-peer"),
    ],
)
def test_client_address_is_the_nearest_one_that_is_no_proxy(
    expected: str, peer: str, forwarded_for: str | None
) -> None:
    """Only what trusted proxies wrote is believed, counted from the right."""
    assert expected == TrustedProxies(NETWORKS).client_address(peer, forwarded_for)


def test_client_address_is_the_peer_when_nobody_is_trusted() -> None:
    """Without trusted proxies the header counts for nothing."""
    assert TrustedProxies([]).client_address("127.0.0.1", "198.51.100.1") == "127.0.0.1"


@given(peer=st.ip_addresses().map(str), forwarded_for=st.text() | st.lists(st.ip_addresses().map(str)).map(",".join))
def test_client_address_is_an_address_whatever_the_header(peer: str, forwarded_for: str) -> None:
    """No header makes it anything else than an address."""
    address = TrustedProxies(["0.0.0.0/1", "::/1"]).client_address(peer, forwarded_for)

    assert ip_address(address)


def test_client_address_comes_through_a_unix_socket_when_that_is_trusted() -> None:
    """Peers without an address are a kind of their own, which `unix` stands for."""
    proxies = TrustedProxies(["unix"])

    assert proxies.client_address("unix", "1.2.3.4, 198.51.100.1") == "198.51.100.1"
    assert proxies.client_address("127.0.0.1", "198.51.100.1") == "127.0.0.1"
