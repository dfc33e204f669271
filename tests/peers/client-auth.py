"""A client that authenticates by what it signs (private_key_jwt): Authlib.

    client-auth.py PROVIDER BROKER AUDIENCE ROLE KEY

Does as client-auth.mjs does, as far as the exchange. Prints one JSON object.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

from authlib.integrations.base_client import OAuthError  # noqa: E402
from authlib.integrations.requests_client import OAuth2Session  # noqa: E402
from authlib.oauth2.rfc7523 import PrivateKeyJWT  # noqa: E402
from joserfc.jwk import ECKey  # noqa: E402

provider, broker, audience, role, file = sys.argv[1:]
there = OAuth2Session("service", "service-secret")
endpoint = there.get(f"{provider}/.well-known/openid-configuration", withhold_token=True).json()[
    "token_endpoint"
]
first = there.fetch_token(
    endpoint, grant_type="client_credentials", resource=broker, scope="api:read"
)
key = ECKey.import_key(json.loads(Path(file).read_text()))


def exchange(claims):
    here = OAuth2Session("robot", key, token_endpoint_auth_method="private_key_jwt")
    here.register_client_auth_method(
        PrivateKeyJWT(claims=claims, headers={"kid": key.kid}, alg="ES256")
    )
    try:
        granted = here.fetch_token(
            f"{broker}/token",
            grant_type="urn:ietf:params:oauth:grant-type:token-exchange",
            subject_token=first["access_token"],
            subject_token_type="urn:ietf:params:oauth:token-type:access_token",
            audience=audience,
            role=role,
        )
    except OAuthError as error:
        return f"{error.error}: {error.description}"
    return f"granted {granted['role']}"


soon = int(time.time()) + 60
print(
    json.dumps(
        {
            "as_it_comes": exchange(None),
            "for_an_hour": exchange({"aud": broker}),
            "granted": exchange({"aud": broker, "exp": soon}),
        }
    )
)
