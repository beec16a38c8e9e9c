"""`deepstream-config`: what deepstream needs to know of us."""

from typing import Annotated
from urllib.parse import urlsplit

import typer

from tornado_ds.app import is_there
from tornado_ds.cli.common import check_installed, current_settings, fail_without
from tornado_ds.errors import SettingsError
from tornado_ds.resources import resource
from tornado_ds.settings import Address, UnixAddress, variable_of, webhook_secret

# deepstream's own default.
DEEPSTREAM_PORT = 6020

# deepstream puts the value of an environment variable in the place of ${NAME}.
_SECRET_BY_NAME = f"${{{variable_of('webhook.secret')}}}"

_TYPES = {
    False: """\
  type: default
  options:""",
    True: """\
  type: uws
  options:
    # This service hands over only the headers that are listed here; without them nobody can log in.
    headers: [cookie, origin, user-agent, x-forwarded-for]""",
}

_TEMPLATE = """\
# For deepstream's config.yml. Whoever reads the secret can ask for anybody's session: keep the file to yourself.
httpServer:
{http_server}
    host: 0.0.0.0
    port: {port}

# Only what is listed here is open; without the list deepstream also opens MQTT on port 1883 of every address.
connectionEndpoints:
  - type: ws-binary
    options:
      urlPath: {path}
  - type: http
    options:
      postPath: /api
      getPath: /api
      authPath: /api/auth

auth:
  - type: http
    options:
      endpointUrl: "http://deepstream:{secret}@{address}/check-token"
      permittedStatusCodes: [200]
      requestTimeout: 2000
      # While the auth server restarts or has lost its database, clients wait instead of being refused.
      retryStatusCodes: [502, 503, 504]
      retryAttempts: 5
      retryInterval: 2000
      # No promoteToHeader: with it, a client without a login can crash deepstream.
      # No second entry of `type: none` either: it would let everybody in.

permission:
  type: config
  options:
    # Every rule there repeats: user.data !== null && now < user.data.expiresAt
    permissions: fileLoad(permissions.yml)

plugins:
  # Closes the connections of sessions that end, expire or change.
  guard:
    path: {guard}
    options:
      url: "http://{address}/session-events"
      secret: "{secret}"
"""


def deepstream_config(
    uws: Annotated[
        bool, typer.Option("--uws", help="For deepstream's uws service instead of the default one.")
    ] = False,
    secret_from_env: Annotated[
        bool, typer.Option("--secret-from-env", help="Name the variable instead of writing the secret itself.")
    ] = False,
) -> None:
    """
    Print the parts of deepstream's config.yml that point to this server, ready to paste.

    Example: python -m tornado_ds deepstream-config --secret-from-env
    """
    settings = current_settings()
    if not secret_from_env and settings.webhook.secret is None:
        check_installed(settings)
        if not is_there(settings.secret_file):
            fail_without(settings.secret_file)
    url = urlsplit(settings.deepstream_url)
    text = _TEMPLATE.format(
        http_server=_TYPES[uws],
        # Where browsers come by TLS, the port is that of what stands in front.
        port=(url.port if url.scheme == "ws" else None) or DEEPSTREAM_PORT,
        path=url.path or "/",
        address=reachable(settings.internal_listen),
        secret=_SECRET_BY_NAME if secret_from_env else webhook_secret(settings),
        guard=resource("config").absolute() / "deepstream" / "session-guard.js",
    )
    typer.echo(text, nl=False)


def reachable(address: Address | UnixAddress) -> Address:
    """
    Return the address that a neighbour connects to when we listen on *address*.

    Raises:
        SettingsError: It is a unix socket, which deepstream's HTTP client does not know.
    """
    if isinstance(address, UnixAddress):
        raise SettingsError(f"internal_listen: deepstream cannot connect to {address}; give it host:port")
    own = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
    return Address(own.get(address.host, address.host), address.port)
