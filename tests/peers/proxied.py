"""A caller that comes to a service through a proxy that asks the broker, and knows nothing
of tmpcred: requests-oauth2client.

    proxied.py PROVIDER BROKER AUDIENCE RESOURCE

Gets an access token of PROVIDER (oidc-provider), exchanges it at BROKER, plainly and with
DPoP, and shows what it got at RESOURCE, as it should and as it should not. Prints one JSON
object, with a token that is good still.
"""

import json
import sys

import requests
from requests_oauth2client import DPoPKey, OAuth2Client
from requests_oauth2client.dpop import add_dpop_proof

provider, broker, audience, resource = sys.argv[1:]
there = OAuth2Client.from_discovery_endpoint(
    issuer=provider, client_id="service", client_secret="service-secret", testing=True
)
first = there.client_credentials(resource=broker, scope="api:read")
here = OAuth2Client.from_discovery_endpoint(
    url=f"{broker}/.well-known/oauth-authorization-server",
    issuer=broker,
    client_id="service",
    testing=True,
)
session = requests.Session()
session.trust_env = False
report = {}

# What somebody writes who wants to be somebody else.
NAMES = ["Subject", "Issuer", "Actor", "Role", "Scope", "Jti", "Groups"]
forged = {f"Tmpcred-{name}": "forged" for name in NAMES}
forged |= {f"Tmpcred_{name}": "forged" for name in NAMES}
for kind in ["Original", "Forwarded"]:
    forged |= {f"X-{kind}-{what}": "forged" for what in ["Method", "Host", "Uri"]}


def exchange(role, **more):
    return here.token_exchange(subject_token=first, resource=audience, role=role, **more)


def seen(response):
    """What came through: the status, and how the service was reached, if it was."""
    try:
        behind = response.json().get("behind")
    except ValueError:
        behind = None
    if behind is None:
        challenge = response.headers.get("WWW-Authenticate", "").split(" ")[0]
        return {"status": response.status_code, "challenge": challenge}
    headers = behind.pop("headers")
    ours = [(name, value) for name, value in headers if name.startswith("tmpcred")]
    # What it answers in any case is none of what it says of the caller.
    said = {name: value for name, value in ours if value and name != "tmpcred-protocol"}
    return {
        "status": response.status_code,
        "forged": any("forged" in value for _, value in ours),
        "underscores": [name for name, _ in ours if "_" in name],
        "left": [name for name, _ in headers if name in ("authorization", "dpop")],
        "subject": said.pop("tmpcred-subject", None),
        "role": said.pop("tmpcred-role", None),
        "groups": said.pop("tmpcred-groups", None),
        "more": sorted(said),
        **behind,
    }


def send(method, path, auth=None, headers=None, data=None):
    return seen(session.request(method, resource + path, auth=auth, headers=headers, data=data))


PATH = "/a%20b/c?d=e%26f"
plain = exchange("deploy", scope="deploy:read")
report["nobody"] = send("GET", PATH)
report["plain"] = send("GET", PATH, plain, forged)
report["posted"] = send("POST", PATH, plain, data="hello")
report["lacking"] = send("GET", PATH, exchange("deploy", scope="deploy:write"))
here.revoke_access_token(plain)
report["revoked"] = send("GET", PATH, plain)

key = DPoPKey.generate()
bound = exchange("bound", dpop=True, dpop_key=key)
# The library finds out by itself that a proof takes a nonce, and which.
report["bound"] = send("GET", PATH, bound, forged)
report["bound_again"] = send("POST", PATH, bound, data="hello")
report["stolen"] = send("GET", PATH, headers={"Authorization": f"Bearer {bound.access_token}"})


def proved(method, path, by):
    request = requests.Request(method, resource + path).prepare()
    add_dpop_proof(request, dpop_key=by, access_token=bound.access_token)
    return {"Authorization": f"DPoP {bound.access_token}", "DPoP": request.headers["DPoP"]}


once = proved("GET", PATH, key)
report["once"] = send("GET", PATH, headers=once)
report["twice"] = send("GET", PATH, headers=once)
report["other_method"] = send("DELETE", PATH, headers=proved("GET", PATH, key))
report["other_path"] = send("GET", "/other", headers=proved("GET", PATH, key))
stranger = DPoPKey.generate(rs_nonce=key.rs_nonce)
report["other_key"] = send("GET", PATH, headers=proved("GET", PATH, stranger))
here.revoke_access_token(bound)
report["bound_revoked"] = send("GET", PATH, headers=proved("GET", PATH, key))

report["token"] = exchange("deploy", scope="deploy:read").access_token
print(json.dumps(report))
