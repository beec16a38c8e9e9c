"""
The auth server for deepstream.io: one session for the page, the API and every live connection.

To embed it, or to write a user store, start with `make_app`, `ProtectedHandler` and `UserStore`.
"""

__version__ = "0.1.0"
