"""A resource owner that lets in by groups, as RFC 9068 section 2.2.3.1 has them, and knows
nothing of tmpcred: Authlib.

    claims.py BROKER AUDIENCE GROUP

Reads access tokens of BROKER for AUDIENCE from standard input, one a line, and prints a JSON
list that says of each whether it is of the group GROUP.
"""

import json
import os
import sys

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"

import requests  # noqa: E402
from authlib.oauth2 import OAuth2Error  # noqa: E402
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator  # noqa: E402

broker, audience, group = sys.argv[1:]
metadata = requests.get(f"{broker}/.well-known/oauth-authorization-server").json()


class Validator(JWTBearerTokenValidator):
    def get_jwks(self):
        return requests.get(metadata["jwks_uri"]).json()


def says(token):
    validator = Validator(issuer=broker, resource_server=audience)
    try:
        claims = validator.authenticate_token(token)
        validator.validate_token(claims, [], None, groups=[group])
    except OAuth2Error as error:
        return error.error
    return "let in"


print(json.dumps([says(line.strip()) for line in sys.stdin]))
