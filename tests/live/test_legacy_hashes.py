"""Passwords that a real Node hashed, as deepstream's `auth: type: file` does."""

import json
import subprocess
from collections.abc import Mapping

from tests.live.servers import NODE
from tests.postgresql import run_now
from tornado_ds.passwords import PasswordHasher, legacy_hash

# What deepstream's tool prints for users.yml: the key and the salt, both in base64.
_SCRIPT = """
const crypto = require("crypto");
const salt = crypto.randomBytes(16).toString("base64");
const entries = {};
for (const name of crypto.getHashes().filter((name) => /sha|md5/i.test(name) && !/shake/.test(name))) {
    entries[name] = crypto.pbkdf2Sync("schöne Grüße", salt, 7, 32, name).toString("base64") + salt;
}
console.log(JSON.stringify(entries));
"""


def test_legacy_hash_is_verified_for_every_digest_that_node_lists() -> None:
    """Whichever name stands in deepstream's config.yml, its users can log in."""
    printed = subprocess.run([NODE, "-e", _SCRIPT], capture_output=True, text=True, check=True, timeout=30).stdout
    entries: dict[str, str] = json.loads(printed)

    verified = run_now(lambda: _verified(entries))

    assert list(entries) == verified
    assert {"sha3-256", "sha512-256", "RSA-SHA256", "md5"} <= set(verified)


async def _verified(entries: Mapping[str, str]) -> list[str]:
    """Return the names of the digests whose entry opens with its password."""
    hasher = PasswordHasher(cost=4, threads=1)
    try:
        hashes = {n: legacy_hash(entry, algorithm=n, iterations=7, key_length=32) for n, entry in entries.items()}
        return [name for name, made in hashes.items() if await hasher.verify("schöne Grüße", made)]
    finally:
        hasher.close()
