"""Runs wrk, or autocannon where there is none, on the load's core."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.machine import MissingError, load_core, on_core
from benchmarks.traffic import TOKEN, Stage, webhook_request
from tests.live.servers import NODE

CONNECTIONS = 32

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a generator saw; times are in seconds, *errors* counts everything but 2xx and 3xx, *sent* the requests."""

    requests: int
    seconds: float
    errors: int
    p50: float
    p99: float
    slowest: float
    sent: int

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.requests / self.seconds


def make_load(address: str, stage: Stage, tokens: Path, *, seconds: int) -> Load:
    """Ask as fast as answers come, over 32 keep-alive connections, each time with the next token of the file."""
    request = _request_file(stage, tokens)
    url = f"http://{address}"
    if shutil.which("wrk"):
        options = ["-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "10s", "-s", str(_HERE / "wrk.lua")]
        command = ["wrk", *options, url, "--", str(request), str(tokens)]
    else:
        script = str(_HERE / "autocannon.mjs")
        command = [NODE, script, url, str(request), str(tokens), str(CONNECTIONS), str(seconds)]
    with on_core(load_core()):
        result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise MissingError(f"{command[0]} failed: {(result.stderr or result.stdout).strip()[-300:]}")
    return Load(**json.loads(result.stdout.strip().splitlines()[-1]))


def _request_file(stage: Stage, tokens: Path) -> Path:
    """Return a file with the request for any token of the length that those in *tokens* have."""
    with tokens.open(encoding="ascii") as lines:
        token = next(lines).strip()
    path = stage.folder / "webhook.request"
    request = webhook_request(token, authorization=stage.authorization)
    path.write_bytes(request.replace(token.encode(), TOKEN.encode()))
    return path
