"""The tables. Times are whole seconds since the epoch, so that both databases and all drivers agree on them."""

from sqlalchemy import JSON, BigInteger, Column, Index, Integer, MetaData, Table, Text

# The newest of the migrations that make these tables.
REVISION = "0003"

metadata = MetaData(
    naming_convention={"pk": "pk_%(table_name)s", "ix": "ix_%(table_name)s_%(column_0_name)s"},
)

# Compared by code point in both databases, so that pages of users follow each other.
_Key = Text().with_variant(Text(collation="C"), "postgresql")

# SQLite numbers rows by itself only in a column that is called INTEGER.
_Serial = BigInteger().with_variant(Integer(), "sqlite")

users = Table(
    "users",
    metadata,
    Column("username_key", _Key, primary_key=True),
    Column("username", Text, nullable=False),
    Column("password_hash", Text, nullable=False),
    Column("server_data", JSON, nullable=False),
    Column("client_data", JSON, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("disabled_at", BigInteger),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("sid", Text, primary_key=True),
    Column("username", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("renewed_at", BigInteger, nullable=False),
    Column("token_expires_at", BigInteger, nullable=False),
    Column("address", Text, nullable=False),
    Column("user_agent", Text, nullable=False),
    Column("label", Text),
    Column("ended_at", BigInteger),
    Column("end_reason", Text),
    Index(None, "username", "token_expires_at"),
    Index(None, "created_at"),
    Index(None, "token_expires_at"),
)

throttle_buckets = Table(
    "throttle_buckets",
    metadata,
    Column("key", _Key, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("username", Text),
    Column("failures", BigInteger, nullable=False),
    Column("blocked_until", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index(None, "expires_at"),
)

session_events = Table(
    "session_events",
    metadata,
    Column("seq", _Serial, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("username", Text, nullable=False),
    Column("sid", Text),
    Column("version", BigInteger),
    Column("reason", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Index(None, "expires_at"),
    Index(None, "created_at"),
    Index(None, "username"),
    # Numbers of pruned events must not be given out again.
    sqlite_autoincrement=True,
)

audit = Table(
    "audit",
    metadata,
    Column("id", _Serial, primary_key=True),
    Column("created_at", BigInteger, nullable=False),
    Column("event", Text, nullable=False),
    Column("username", Text),
    Column("actor", Text, nullable=False),
    Column("sid", Text),
    Column("address", Text, nullable=False),
    Column("user_agent", Text, nullable=False),
    Column("detail", Text, nullable=False),
    Column("count", BigInteger, nullable=False),
    Index(None, "created_at"),
    Index(None, "username", "id"),
    Index(None, "event", "id"),
)
