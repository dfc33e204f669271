"""Those who keep the broker's keys, while it changes them: PyJWT, and an STS by boto3.

    rotation.py PROVIDER BROKER AUDIENCE STS ROLE

Gets tokens at BROKER and verifies each with the keys that PyJWT keeps. Says «ready» on
standard error, goes on until another key signs, and trades the first token and the last at
STS. Prints one JSON object.
"""

import json
import sys
import time

import boto3
import jwt
from botocore import UNSIGNED
from botocore.config import Config
from requests_oauth2client import OAuth2Client

provider, broker, audience, sts, role = sys.argv[1:]
there = OAuth2Client.from_discovery_endpoint(
    issuer=provider, client_id="service", client_secret="service-secret", testing=True
)
first = there.client_credentials(resource=broker, scope="api:read")
here = OAuth2Client.from_discovery_endpoint(
    url=f"{broker}/.well-known/oauth-authorization-server", issuer=broker, client_id="service", testing=True
)
# It looks for new keys at most so often, half a minute by default; here keys are published
# for less than that before they sign.
keys = jwt.PyJWKClient(f"{broker}/jwks.json", cooldown_duration=10)
federation = boto3.client(
    "sts",
    endpoint_url=sts,
    region_name="us-east-1",
    config=Config(signature_version=UNSIGNED, retries={"max_attempts": 1}),
)


def token():
    return here.token_exchange(subject_token=first, resource=audience, role="deploy").access_token


def verify(token):
    key = keys.get_signing_key_from_jwt(token)
    return jwt.decode(token, key, algorithms=["ES256"], audience=audience, issuer=broker)["role"]


def session(token):
    answer = federation.assume_role_with_web_identity(
        RoleArn=role, RoleSessionName="rotation", WebIdentityToken=token
    )
    return bool(answer["Credentials"]["SessionToken"])


def kid(token):
    return jwt.get_unverified_header(token)["kid"]


old = token()
report = {"verified": [verify(old)], "sessions": [session(old)]}
print("ready", file=sys.stderr, flush=True)
deadline = time.monotonic() + 90
new = old
while kid(new) == kid(old):
    if time.monotonic() > deadline:
        sys.exit("no other key signs")
    time.sleep(0.5)
    new = token()
    assert verify(new) == "deploy"
report["verified"] += [verify(new), verify(old)]
report["sessions"] += [session(new), session(old)]
report["rotated"] = kid(new) != kid(old)
print(json.dumps(report))
