#!/bin/sh
# Look before anything on the host changes: is this revision fit to run at all?
set -eu
archive=$(dirname "$0")/..
echo "checking revision $DEPLOYMENT_ID"
python3 -c 'import ast, sys; ast.parse(open(sys.argv[1]).read(), "app/server.py")' "$archive/app/server.py"
echo "app/server.py is fine"
