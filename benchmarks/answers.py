"""Is a program right, before anybody asks how fast it is?"""

import json
from http.client import HTTPConnection

from benchmarks.machine import MissingError
from benchmarks.traffic import Stage, forge, username_of, webhook_body


def check_answers(address: str, stage: Stage, label: str) -> None:
    """
    Accept a program that lets the right user in and refuses a forged token.

    Raises:
        MissingError: It does not.
    """
    with stage.hot.open(encoding="ascii") as lines:
        token = next(lines).strip()
    status, body = ask(address, stage, token)
    if status != 200 or json.loads(body).get("id") != username_of(0):
        raise MissingError(f"{label} answers a good token with {status} {body[:200]!a}")
    status, body = ask(address, stage, forge(token))
    if status != 403:
        raise MissingError(f"{label} answers a forged token with {status} {body[:200]!a}")


def ask(address: str, stage: Stage, token: str) -> tuple[int, bytes]:
    """Return status and body of the webhook's answer about *token*."""
    connection = HTTPConnection(address, timeout=10)
    try:
        headers = {"Content-Type": "application/json; charset=utf-8", "Authorization": stage.authorization}
        connection.request("POST", "/check-token", body=webhook_body(token), headers=headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()
