#!/bin/sh
# The deployment counts only when the new revision answers.
set -eu
python3 - <<'PYTHON'
import json, os, time, urllib.request
address = "http://127.0.0.1:@PORT@/api/revision"
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
deadline = time.monotonic() + 20
while True:
    try:
        answer = json.load(opener.open(address, timeout=2))
        break
    except OSError:
        if time.monotonic() > deadline:
            raise
        time.sleep(0.05)
print("the server answers:", answer)
PYTHON
