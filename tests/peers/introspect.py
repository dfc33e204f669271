"""A resource owner that asks about each token (RFC 7662) and knows nothing of tmpcred:
Authlib, as a client that authenticates by what it signs (private_key_jwt), and
requests-oauth2client, which checks the proofs.

    introspect.py PROVIDER BROKER AUDIENCE KEY

Gets an access token of PROVIDER (oidc-provider), exchanges it at BROKER for a token of each
role, and shows these to a resource owner, who asks as the client `robot`, whose private key
is in the file KEY. Prints one JSON object.
"""

import hashlib
import json
import os
import sys
import time
from base64 import urlsafe_b64encode
from pathlib import Path

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

import requests  # noqa: E402
from authlib.integrations.requests_client import OAuth2Session  # noqa: E402
from authlib.oauth2 import OAuth2Error  # noqa: E402
from authlib.oauth2.rfc7523 import PrivateKeyJWT  # noqa: E402
from authlib.oauth2.rfc7662 import IntrospectTokenValidator  # noqa: E402
from joserfc.jwk import ECKey  # noqa: E402
from requests_oauth2client import DPoPKey, OAuth2Client, PrivateKeyJwt  # noqa: E402
from requests_oauth2client.dpop import InvalidDPoPProof, validate_dpop_proof  # noqa: E402

provider, broker, audience, file = sys.argv[1:]
METADATA = f"{broker}/.well-known/oauth-authorization-server"
private = json.loads(Path(file).read_text())
metadata = requests.get(METADATA).json()
THINGS = "https://api.example.com/things"


def ask(token):
    # Authlib keeps a `jti` among the claims that it is given: each request takes new ones.
    claims = {"aud": broker, "exp": int(time.time()) + 60}
    signing = ECKey.import_key(private)
    robot = OAuth2Session("robot", signing, token_endpoint_auth_method="private_key_jwt")
    robot.register_client_auth_method(
        PrivateKeyJWT(claims=claims, headers={"kid": signing.kid}, alg="ES256")
    )
    return robot.introspect_token(metadata["introspection_endpoint"], token=token).json()


def ath(token):
    return urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).rstrip(b"=").decode()


class Owner(IntrospectTokenValidator):
    def introspect_token(self, token_string):
        return ask(token_string)

    def validate_token(self, token, scopes, request):
        super().validate_token(token, scopes, request)
        scheme, _, shown = request.headers["Authorization"].partition(" ")
        assert scheme == token["token_type"], f"shown as {scheme}"
        if "cnf" in token:
            proof = validate_dpop_proof(
                request.headers["DPoP"], htm=request.method, htu=THINGS, ath=ath(shown), alg="ES256"
            )
            key = ECKey.import_key(dict(proof.headers["jwk"]))
            assert key.thumbprint() == token["cnf"]["jkt"], "another key"


def take(request, scopes=("deploy:read",)):
    owner = Owner()
    try:
        token = owner.authenticate_token(request.headers["Authorization"].partition(" ")[2])
        owner.validate_token(token, list(scopes), request)
        return "served"
    except (OAuth2Error, InvalidDPoPProof, AssertionError) as error:
        return getattr(error, "error", None) or type(error).__name__


def request(auth, method="GET"):
    return requests.Request(method, THINGS, auth=auth).prepare()


there = OAuth2Client.from_discovery_endpoint(
    issuer=provider, client_id="service", client_secret="service-secret", testing=True
)
first = there.client_credentials(resource=broker, scope="api:read")
# The same client by another library.
here = OAuth2Client.from_discovery_endpoint(
    url=METADATA,
    issuer=broker,
    auth=PrivateKeyJwt("robot", private, alg="ES256", aud=broker),
    testing=True,
)
report = {}
for role in ["bound", "opaque-bound", "opaque"]:
    key = DPoPKey.generate()
    proving = {} if role == "opaque" else {"dpop": True, "dpop_key": key}
    token = here.token_exchange(subject_token=first, resource=audience, role=role, **proving)
    told = ask(token.access_token)
    seen = {
        "active": told["active"],
        "token_type": told["token_type"],
        "jkt": told["cnf"]["jkt"] == key.dpop_jkt if "cnf" in told else None,
        "same": here.introspect_token(token) == told,
        "served": take(request(token)),
        "scope": take(request(token), ["deploy:write"]),
    }
    if proving:
        stolen = requests.Request("GET", THINGS)
        stolen.headers["Authorization"] = f"Bearer {token.access_token}"
        seen["stolen"] = take(stolen.prepare())
        other = request(token)
        other.method = "DELETE"
        seen["other_method"] = take(other)
        proof = DPoPKey.generate().proof(htm="GET", htu=THINGS, ath=ath(token.access_token))
        theirs = request(token)
        theirs.headers["DPoP"] = str(proof)
        seen["other_key"] = take(theirs)
    here.revoke_access_token(token)
    seen["revoked"] = take(request(token))
    report[role] = seen
print(json.dumps(report))
