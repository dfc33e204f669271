"""What lets requests of Schemathesis get beyond the first check, two times of three."""

import os

import schemathesis

API = "https://api.example.com"
ASSERTION = os.environ["ASSERTION"]
TOKEN = os.environ["TOKEN"]
EXCHANGE = {
    "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
    "subject_token": ASSERTION,
    "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
    "audience": API,
    "role": "reader",
}
# What those take whose bodies are made harmless: one that has something else is to be refused.
KNOWN = {
    "token", "jti", "issuer", "subject", "role", "client", "all", "before", "reason", "algorithm", "log",
    "client_id", "client_assertion", "client_assertion_type", "client_secret",
}


def is_helped(anything):
    return len(str(anything)) % 3 != 0


@schemathesis.hook
def map_body(context, body):
    """Shows a good assertion; asks about a good token; operates harmlessly."""
    if not isinstance(body, dict) or not is_helped(body):
        return body
    if "subject_token" in body:
        wanted = ("scope", "requested_ttl", "requested_token_type")
        return {name: body[name] for name in wanted if name in body} | EXCHANGE
    if context.operation.path == "/introspect":
        return {"token": TOKEN}
    if not set(body) <= KNOWN:
        return body
    if context.operation.path in ("/v1/revocations", "/v1/revocations/dry-run"):
        return {"client": "nobody"}
    if context.operation.path == "/v1/keys/rotate":
        return {}
    return body


@schemathesis.hook
def map_headers(context, headers):
    """Asks about a request as nginx does."""
    if not context.operation.path.startswith("/v1/authz"):
        return headers
    nginx = {"X-Original-Method": "GET", "X-Original-Host": "api.example.com"}
    return dict(headers or {}) | nginx | {"X-Original-URI": "/x"}


@schemathesis.auth().apply_to(path_regex="^/(introspect|v1/authz)")
class Token:
    """Shows a good token, but where it is tried what comes without one."""

    def get(self, case, context):
        return TOKEN

    def set(self, case, data, context):
        case.headers.setdefault("Authorization", f"Bearer {data}")


@schemathesis.auth().apply_to(path_regex="^/v1/(revocations|keys|audit)")
class Operator:
    """Shows who asks, but where it is tried what comes without that."""

    def get(self, case, context):
        return ASSERTION

    def set(self, case, data, context):
        case.headers.setdefault("Authorization", f"Bearer {data}")
