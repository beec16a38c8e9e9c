"""
FastAPI with PyJWT, typed with pydantic models as FastAPI's documentation advises; runs on uvicorn.

JWK (the signing key), ISSUER and AUDIENCE come from the environment.
"""

import json
import os
from typing import Any

import jwt
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

KEY = jwt.PyJWK(json.loads(os.environ["JWK"]), algorithm="HS256")
ISSUER = os.environ["ISSUER"]
AUDIENCE = os.environ["AUDIENCE"]

app = FastAPI()


class ConnectionData(BaseModel):
    """What deepstream tells about a connection, as far as it matters here."""

    headers: dict[str, str] = {}


class WebhookBody(BaseModel):
    """One request of deepstream."""

    connectionData: ConnectionData  # noqa: N815


class Answer(BaseModel):
    """Who is connecting."""

    id: str
    username: str
    clientData: dict[str, Any]  # noqa: N815
    serverData: dict[str, Any]  # noqa: N815


@app.get("/readyz")
async def readyz() -> str:
    """Say that it is up."""
    return "ready"


@app.post("/check-token")
async def check_token(body: WebhookBody) -> Answer:
    """Answer the webhook."""
    token = _cookie(body.connectionData.headers.get("cookie", ""), "access_token")
    try:
        claims = jwt.decode(token, KEY, algorithms=["HS256"], issuer=ISSUER, audience=AUDIENCE)
    except jwt.InvalidTokenError as exc:
        raise HTTPException(403, "session_invalid") from exc
    username, expires_at = claims["sub"], claims["exp"] * 1000
    return Answer(
        id=username,
        username=username,
        clientData={**claims["client_data"], "username": username, "expiresAt": expires_at},
        serverData={
            **claims["server_data"],
            "sid": claims["sid"],
            "version": claims["ver"],
            "expiresAt": expires_at,
        },
    )


def _cookie(header: str, name: str) -> str:
    for pair in header.split(";"):
        found, _, value = pair.strip().partition("=")
        if found == name:
            return value
    return ""
