"""Clients and resource owners that know nothing of tmpcred: requests-oauth2client, Authlib
and PyJWT.

    interop.py PROVIDER BROKER AUDIENCE RESOURCE

Gets access tokens of PROVIDER (oidc-provider), exchanges them at BROKER, plainly and with
DPoP, asks about, verifies and revokes what it got, and shows it to RESOURCE, whose owner
wants tokens for AUDIENCE. Prints one JSON object.
"""

import json
import os
import sys

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

import jwt  # noqa: E402
import requests  # noqa: E402
from authlib.integrations.requests_client import OAuth2Session  # noqa: E402
from authlib.oauth2 import OAuth2Error  # noqa: E402
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator  # noqa: E402
from requests_oauth2client import DPoPKey, OAuth2Client, OAuth2Error as Refused  # noqa: E402

provider, broker, audience, resource = sys.argv[1:]
METADATA = f"{broker}/.well-known/oauth-authorization-server"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"
report = {}


def outcome(attempt):
    try:
        return attempt()
    except (Refused, OAuth2Error, jwt.InvalidTokenError) as error:
        return getattr(error, "error", None) or type(error).__name__


there = OAuth2Client.from_discovery_endpoint(
    issuer=provider, client_id="service", client_secret="service-secret", testing=True
)
first = there.client_credentials(resource=broker, scope="api:read")
here = OAuth2Client.from_discovery_endpoint(
    url=METADATA, issuer=broker, client_id="service", testing=True
)


def exchange(subject=first, role="deploy", **more):
    return here.token_exchange(subject_token=subject, resource=audience, role=role, **more)


granted = exchange(scope="deploy:read")
report["granted"] = {
    "token_type": granted.token_type,
    "scope": granted.scope,
    "issued_token_type": granted.issued_token_type,
}
report["elsewhere"] = outcome(
    lambda: here.token_exchange(
        subject_token=first, resource="https://other.example.com", role="deploy"
    )
)
report["no_address"] = outcome(
    lambda: here.token_exchange(subject_token=first, resource="api", role="deploy")
)

# PyJWT, by the JWKS that the metadata names.
metadata = requests.get(METADATA).json()
keys = jwt.PyJWKClient(metadata["jwks_uri"])


def verified(token, wanted):
    key = keys.get_signing_key_from_jwt(token)
    claims = jwt.decode(token, key, algorithms=["ES256"], audience=wanted, issuer=broker)
    return claims["role"]


report["pyjwt"] = {
    "typ": jwt.get_unverified_header(granted.access_token)["typ"],
    "ours": outcome(lambda: verified(granted.access_token, audience)),
    "theirs": outcome(lambda: verified(granted.access_token, "https://other.example.com")),
    "tampered": outcome(lambda: verified(granted.access_token[:-8] + "AAAAAAAA", audience)),
}


# Authlib, as RFC 9068 has it.
class Validator(JWTBearerTokenValidator):
    def get_jwks(self):
        return requests.get(metadata["jwks_uri"]).json()


def authlib_says(token, wanted, scopes):
    validator = Validator(issuer=broker, resource_server=wanted)
    claims = validator.authenticate_token(token)
    validator.validate_token(claims, scopes, None)
    return claims["role"]


report["authlib"] = {
    "ours": outcome(lambda: authlib_says(granted.access_token, audience, ["deploy:read"])),
    "scope": outcome(lambda: authlib_says(granted.access_token, audience, ["deploy:write"])),
    "theirs": outcome(lambda: authlib_says(granted.access_token, "https://other.example", [])),
}

# A token asks about itself, and whoever holds it ends it.
session = OAuth2Session("service", token_endpoint_auth_method="none")
bearer = {"Authorization": f"Bearer {granted.access_token}"}


def told():
    answer = session.introspect_token(
        metadata["introspection_endpoint"],
        token=granted.access_token,
        token_type_hint="access_token",
        headers=bearer,
    )
    return answer.json()


def shown(auth):
    return requests.get(resource, auth=auth).status_code


report["before"] = told()
report["shown"] = shown(granted)
session.revoke_token(
    metadata["revocation_endpoint"], token=granted.access_token, token_type_hint="refresh_token"
)
report["after"] = told()
report["shown_after"] = shown(granted)

# Authlib exchanges, too.
report["by_authlib"] = session.fetch_token(
    metadata["token_endpoint"],
    grant_type="urn:ietf:params:oauth:grant-type:token-exchange",
    subject_token=first.access_token,
    subject_token_type=ACCESS_TOKEN,
    audience=audience,
    role="deploy",
)["role"]

# With a key: the library finds out by itself that it takes a nonce.
key = DPoPKey.generate()
bound = exchange(role="bound", dpop=True, dpop_key=key)
report["bound"] = {
    "token_type": bound.token_type,
    "jkt": jwt.decode(bound.access_token, options={"verify_signature": False})["cnf"]["jkt"] == key.dpop_jkt,
    "unproved": outcome(lambda: exchange(role="bound")),
    "shown": shown(bound),
    "again": shown(bound),
    "stolen": requests.get(
        resource, headers={"Authorization": f"Bearer {bound.access_token}"}
    ).status_code,
}
print(json.dumps(report))
