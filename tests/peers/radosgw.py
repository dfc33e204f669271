"""Fills the gateway of radosgw.sh, as its administrator.

    radosgw.py URL '{"providers": […], "users": […], "roles": […], "objects": […]}'

What there is already is left alone. A provider is trusted with its issuer and
the audiences (`clients`); its keys have to be published with certificates. A
user has a name and a policy; a role has a name, a trust policy and a policy; an
object has a bucket, a key and a body.
"""

import base64
import hashlib
import json
import sys
import urllib.request

import boto3
from botocore.config import Config


def connect(service):
    config = Config(retries={"max_attempts": 1}, request_checksum_calculation="when_required", s3={"addressing_style": "path"})
    return boto3.client(
        service,
        endpoint_url=sys.argv[1],
        region_name="us-east-1",
        aws_access_key_id="ADMIN",
        aws_secret_access_key="adminsecret",
        config=config,
    )


def get(url):
    with urllib.request.urlopen(url) as answer:
        return json.load(answer)


def thumbprints(issuer):
    keys = get(get(f"{issuer}/.well-known/openid-configuration")["jwks_uri"])["keys"]
    certificates = [certificate for key in keys for certificate in key.get("x5c", [])]
    return [hashlib.sha1(base64.b64decode(one)).hexdigest().upper() for one in certificates]


def policy(document):
    # Its reader stumbles over spaces.
    return json.dumps(document, separators=(",", ":"))


wanted = json.loads(sys.argv[2])
iam, s3 = connect("iam"), connect("s3")
for provider in wanted.get("providers", []):
    iam.create_open_id_connect_provider(
        Url=provider["issuer"], ClientIDList=provider["clients"], ThumbprintList=thumbprints(provider["issuer"])
    )
for user in wanted.get("users", []):
    iam.put_user_policy(UserName=user["name"], PolicyName="all", PolicyDocument=policy(user["policy"]))
for role in wanted.get("roles", []):
    iam.create_role(RoleName=role["name"], AssumeRolePolicyDocument=policy(role["trust"]))
    iam.put_role_policy(RoleName=role["name"], PolicyName="all", PolicyDocument=policy(role["policy"]))
for thing in wanted.get("objects", []):
    s3.create_bucket(Bucket=thing["bucket"])
    s3.put_object(Bucket=thing["bucket"], Key=thing["key"], Body=thing["body"].encode())
