"""Takes traces by OTLP over HTTP, with OtelTap, and writes each span down as a line of JSON.

otlp.py PORT FILE
"""

import asyncio
import json
import sys

from google.protobuf.json_format import MessageToDict
from oteltap import OtelTapHttpProtobufReceiver, OtelTapHttpProtobufReceiverSettings


def value(any_value):
    (one,) = MessageToDict(any_value).values()
    return one


async def main(port, file):
    settings = OtelTapHttpProtobufReceiverSettings(http_port=port, print_traces_as_ndjson=True)
    async with OtelTapHttpProtobufReceiver(settings) as receiver:
        async for span in receiver.stream_traces():
            line = {
                "name": span.name,
                "kind": span.kind,
                "trace": span.trace_id.hex(),
                "span": span.span_id.hex(),
                "parent": span.parent_span_id.hex(),
                "state": span.trace_state,
                "error": span.status.code == 2,
                "attributes": {a.key: value(a.value) for a in span.attributes},
                "raw": span.SerializeToString().hex(),
            }
            file.write(json.dumps(line) + "\n")
            file.flush()


if __name__ == "__main__":
    with open(sys.argv[2], "a", encoding="utf-8") as file:
        asyncio.run(main(int(sys.argv[1]), file))
