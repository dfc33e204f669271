"""What takes events of the Open Cybersecurity Schema Framework, and knows nothing of tmpcred:
judges events by the schema of the version that each of them names, whose compiled form the
package ocsf-json-schema has.

    siem.py <EVENTS

Reads a line of JSON for each event. Prints what is wrong with them, a line each.
"""

import json
import sys

from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

schemas = {}


def judge(event):
    version, uid = event["metadata"]["version"], event["class_uid"]
    if (version, uid) not in schemas:
        compiled = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=version))
        name = compiled.lookup_class_name_from_uid(uid)
        schemas[version, uid] = compiled.get_class_schema(class_name=name, profiles=[])
    schema = schemas[version, uid]
    for error in Draft202012Validator(schema).iter_errors(event):
        yield f"{'.'.join(map(str, error.path))}: {error.message}"
    for name in event:
        if schema["properties"].get(name, {}).get("deprecated"):
            yield f"{name}: it is deprecated"
    if event["type_uid"] != uid * 100 + event["activity_id"]:
        yield "type_uid: it is not that of class and activity"


for line in sys.stdin:
    event = json.loads(line)
    for wrong in judge(event):
        print(f"{event['metadata']['sequence']}: {wrong}")
