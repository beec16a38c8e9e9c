from email.utils import parsedate_to_datetime
from http.cookies import SimpleCookie

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tornado_ds.cookies import SessionCookie

PLAIN = SessionCookie("http://localhost:8000")
SECURE = SessionCookie("https://app.example.com")


@pytest.mark.parametrize(
    ("expected", "header"),
    [
        pytest.param(None, "", id="empty"),
        pytest.param(None, ";;; ;", id="separators"),
        pytest.param(None, "access_token", id="no-equals-sign"),
        pytest.param("", "access_token=", id="empty-value"),
        pytest.param("a.b-c_d", "access_token=a.b-c_d", id="alone"),
        pytest.param("a", "theme=dark; access_token=a; lang=de", id="between-others"),
        pytest.param("a", "theme=dark;access_token=a;lang=de", id="without-blanks"),
        pytest.param("a", " \taccess_token\t =\t a \t", id="spaces-and-tabs"),
        pytest.param("a=b==", "access_token=a=b==", id="equals-signs-in-value"),
        pytest.param('"a"', 'access_token="a"', id="quotes-are-part-of-the-value"),
        pytest.param("a", 'json={"a":1}; access_token=a; x=[1,2]', id="beside-json"),
        pytest.param("a", "bad name=1; access_token=a", id="beside-a-name-with-a-blank"),
        pytest.param("a", 'x="unclosed; access_token=a', id="beside-an-open-quote"),
        pytest.param("a", "x=\u00e4\u6f22; access_token=a", id="beside-not-ascii"),
        pytest.param("a", "=nameless; access_token=a; nothing", id="beside-nameless-ones"),
        pytest.param("a", "expires=Thu, 01 Jan 1970 00:00:00 GMT; access_token=a", id="beside-a-date"),
        pytest.param("a", "\ud800=\udfff; access_token=a", id="beside-surrogates"),
        pytest.param(None, "access_token=a; access_token=b", id="twice"),
        pytest.param(None, "access_token=a; access_token=a", id="twice-the-same"),
        pytest.param(None, "access_token=; access_token=a", id="empty-and-another"),
        pytest.param(None, "\xa0access_token=a", id="no-break-space-before"),
        pytest.param(None, "access_token\xa0=a", id="no-break-space-behind"),
        pytest.param(None, "\x85access_token=a", id="next-line-before"),
        pytest.param(None, "\x0baccess_token=a", id="vertical-tab-before"),
        pytest.param(None, "\u3000access_token=a", id="wide-space-before"),
        pytest.param(None, "\naccess_token=a", id="line-feed-before"),
        pytest.param(None, "Access_Token=a", id="other-case"),
        pytest.param(None, "xaccess_token=a", id="other-prefix"),
        pytest.param(None, "access_token2=a", id="other-suffix"),
        pytest.param(None, '"access_token"=a', id="quoted-name"),
        pytest.param(None, "access_tok%65n=a", id="encoded-name"),
        pytest.param(None, "x=access_token=a", id="inside-a-value"),
        pytest.param("a", "\xa0access_token=evil; access_token=a", id="planted-beside-ours"),
        pytest.param("a", "access_token=a, access_token=b".replace(", access_token=b", ""), id="one"),
        pytest.param("a, access_token=b", "access_token=a, access_token=b", id="comma-is-no-separator"),
    ],
)
def test_read_finds_our_cookie_and_no_other(expected: str | None, header: str) -> None:
    """One cookie of exactly our name, whatever stands around it."""
    assert expected == PLAIN.read(header)


@pytest.mark.parametrize(
    ("expected", "header"),
    [
        pytest.param("a", "__Host-access_token=a", id="ours"),
        pytest.param(None, "access_token=a", id="plain-name-on-https"),
        pytest.param(None, "__host-access_token=a", id="other-case"),
        pytest.param(None, "\xa0__Host-access_token=a", id="planted-by-another-host"),
        pytest.param("a", "access_token=evil; __Host-access_token=a", id="both"),
    ],
)
def test_read_wants_the_host_prefix_when_the_site_is_https(expected: str | None, header: str) -> None:
    """A cookie that a neighbour host or a plain page could have planted is not looked at."""
    assert expected == SECURE.read(header)


@given(header=st.text(st.characters(codec=None) | st.sampled_from("; =\t\xa0")))
def test_read_returns_text_or_none_whatever_the_header(header: str) -> None:
    """Nothing that a client puts into the header raises anything."""
    value = PLAIN.read(header)

    assert value is None or value in header


@given(before=st.text("ab;= ", max_size=20), after=st.text("ab;= ", max_size=20))
def test_read_finds_our_cookie_whatever_cookies_stand_around_it(before: str, after: str) -> None:
    """Foreign cookies never hide ours."""
    assert PLAIN.read(f"{before};access_token=token;{after}") == "token"


def test_set_header_has_exactly_our_attributes_when_the_site_is_http() -> None:
    """On http://localhost there is no Secure and no prefix: browsers would drop the cookie."""
    header = PLAIN.set_header("a.b.c", expires_at=1_800_000_000)

    expected = "access_token=a.b.c; Expires=Fri, 15 Jan 2027 08:00:00 GMT; Path=/; HttpOnly; SameSite=Lax"
    assert expected == header


def test_set_header_keeps_the_rules_of_the_host_prefix_when_the_site_is_https() -> None:
    """__Host- asks for Secure, Path=/ and no Domain (RFC 6265bis, section 4.1.3.2)."""
    header = SECURE.set_header("a.b.c", expires_at=1_800_000_000)

    name, *attributes = header.split("; ")
    assert name == "__Host-access_token=a.b.c"
    assert {"Secure", "Path=/", "HttpOnly", "SameSite=Lax"} < set(attributes)
    assert "domain" not in header.lower()


@pytest.mark.parametrize("cookie", [PLAIN, SECURE], ids=["http", "https"])
def test_clear_header_differs_from_set_header_in_value_and_date_only(cookie: SessionCookie) -> None:
    """A browser removes a cookie only if all attributes are those it was set with."""
    morsel_set = SimpleCookie(cookie.set_header("a", expires_at=1_800_000_000))[cookie.name]
    morsel_clear = SimpleCookie(cookie.clear_header())[cookie.name]

    assert morsel_clear.value == ""
    assert parsedate_to_datetime(morsel_clear["expires"]).timestamp() == 0
    assert dict(morsel_set) | {"expires": ""} == dict(morsel_clear) | {"expires": ""}
