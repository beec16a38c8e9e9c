"""What handlers and commands work with, built once by `tornado_ds.app`."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tornado_ds.accounts import Accounts
from tornado_ds.audit import Audit
from tornado_ds.checker import SessionChecker
from tornado_ds.clock import Clock
from tornado_ds.cookies import SessionCookie
from tornado_ds.devices import Devices
from tornado_ds.feed import Feed
from tornado_ds.gate import ConnectionGate
from tornado_ds.housekeeping import Housekeeping
from tornado_ds.key_follower import KeyFollower
from tornado_ds.passwords import PasswordHasher
from tornado_ds.readiness import Readiness
from tornado_ds.sessions import Sessions
from tornado_ds.settings import Settings
from tornado_ds.snapshot import SessionSnapshot
from tornado_ds.throttle import Throttle
from tornado_ds.tokens import TokenService
from tornado_ds.users import UserStore

if TYPE_CHECKING:
    from tornado_ds.metrics import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The objects of one running server, or of one command."""

    settings: Settings
    clock: Clock
    users: UserStore
    passwords: PasswordHasher
    throttle: Throttle
    audit: Audit
    accounts: Accounts
    tokens: TokenService
    key_follower: KeyFollower
    snapshot: SessionSnapshot
    sessions: Sessions
    feed: Feed
    housekeeping: Housekeeping
    checker: SessionChecker
    cookie: SessionCookie
    devices: Devices
    gate: ConnectionGate
    readiness: Readiness
    metrics: "Metrics"
