#!/bin/sh
# Stop the server of the previous revision, start that of this one. It outlives this script.
set -eu
home=@HOME@
if [ -f "$home/../server.pid" ]; then
    old=$(cat "$home/../server.pid")
    kill "$old" 2>/dev/null && echo "stopped the old server (pid $old)" || true
    # Gone, or only waiting for its parent to notice: in containers nobody may ever do.
    while [ -d "/proc/$old" ] && ! grep -q '^State:.Z' "/proc/$old/status"; do sleep 0.05; done
fi
nohup "$home/server.py" @PORT@ >"$home/../server.log" 2>&1 &
echo $! >"$home/../server.pid"
echo "started the server (pid $!) on port @PORT@"
