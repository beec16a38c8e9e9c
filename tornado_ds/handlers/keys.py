"""The public keys, for whoever wants to verify our tokens."""

from tornado_ds.handlers.base import BaseHandler

# Less than a new key waits before it signs (tornado_ds.key_file): a cache never
# lacks the key of a token that is good already.
MAX_AGE_SECONDS = 5


class JWKSHandler(BaseHandler):
    """
    `GET /.well-known/jwks.json`: a JWK set (RFC 7517, section 5) of the keys that are not retired.

    With a shared secret it is empty and not 404: that there are no public keys is
    an answer, while clients take a 404 for an outage, and ask again and again.
    """

    async def get(self) -> None:
        self.set_header("Cache-Control", f"public, max-age={MAX_AGE_SECONDS}")
        self.write_json(self.services.tokens.keys.jwks())
