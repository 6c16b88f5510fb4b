#!/bin/sh
# Checks the Node and Go clients against the real bridge, side by side. A tool that is missing is named,
# and what needs it left out; where CI is set that is an error, so that nothing is skipped unseen.
# With --setup it only installs and compiles what the checks need; with --lint it looks at the Go client as other systems
# and a linter see it, which compiles the standard library again for each of them.
set -eu
cd "$(dirname "$0")/.."
REPORT_BRIDGE_BIN="$PWD/.venv/bin/report-bridge"
GOTOOLCHAIN=local
export REPORT_BRIDGE_BIN GOTOOLCHAIN

missing() {
    if [ -n "${CI:-}" ]; then
        echo "check: $1 is missing, and with CI set nothing may be left out" >&2
        exit 1
    fi
    echo "check: $1 is missing, so $2 was left out"
}

set_up_node() {
    if [ ! -f node_modules/.stamp ] || [ package-lock.json -nt node_modules/.stamp ]; then
        npm ci --loglevel=error --no-audit --no-fund
        touch node_modules/.stamp
    fi
}

# The checks are chained by &&: where their status is asked for, the shell does not heed "set -e".
check_node() {
    npm test --silent && node dist/dev/examples/bot.js
}

set_up_go() {
    go mod download
    (cd interop && go mod download)
    if [ "${1:-}" = --setup ]; then
        go test $race -run '^$' ./... >/dev/null
        (cd interop && go test $race -run '^$' ./... >/dev/null)
    fi
}

# The zip of `make dist` in the hands of somebody with an empty module.
check_zip() {
    folder=$(mktemp -d) &&
        ../../.venv/bin/python -c 'import sys; sys.path.insert(0, sys.argv[2]); from pathlib import Path
from scripts.dist_clients import pack_go; pack_go(Path(sys.argv[1]), 1_577_836_800)' "$folder" "$PWD/../.." &&
        (
            cd "$folder" && "$OLDPWD/../../.venv/bin/python" -m zipfile -e ./*.zip . &&
                cp reportbridge/examples/bot/main.go . && go mod init example.test/bot &&
                go mod edit -require anticaptcha-report-bridge/reportbridge@v0.0.0 \
                    -replace anticaptcha-report-bridge/reportbridge=./reportbridge &&
                go run $race .
        ) && rm -rf "$folder"
}

# Everything with the race detector, so that the standard library is compiled once.
check_go() {
    unformatted=$(gofmt -l .) &&
        { [ -z "$unformatted" ] || { echo "not formatted: $unformatted"; false; }; } &&
        go test $race -vet=all -shuffle=on ./... &&
        go run $race ./examples/bot && check_zip &&
        cd interop && go test $race -vet=all ./...
}

lint_go() {
    (cd interop && go mod download && go build -o ../../../.venv/staticcheck honnef.co/go/tools/cmd/staticcheck) &&
        ../../.venv/staticcheck ./... &&
        go vet ./... && GOOS=windows go vet ./... && GOOS=darwin go vet ./...
}

if [ "${1:-}" = --lint ]; then
    cd clients/go && lint_go
    exit
fi

node_log=.venv/check-node.log
node_pid=
if command -v node >/dev/null 2>&1 && command -v npm >/dev/null 2>&1; then
    (cd clients/node && set_up_node)
    if [ "${1:-}" != --setup ]; then
        (cd clients/node && check_node) >"$node_log" 2>&1 &
        node_pid=$!
    fi
else
    missing "Node.js with npm" "the Node client"
fi

go_status=0
if command -v go >/dev/null 2>&1; then
    # Not inlined, the standard library is compiled in three quarters of the time.
    race='-race -gcflags=all=-l'
    if ! command -v cc >/dev/null 2>&1; then
        missing "a C compiler" "the race detector of the Go client"
        race=-gcflags=all=-l
    fi
    (cd clients/go && set_up_go "${1:-}")
    if [ "${1:-}" != --setup ]; then
        (cd clients/go && check_go) || go_status=$?
    fi
else
    missing "Go" "the Go client"
fi

if [ -n "$node_pid" ]; then
    node_status=0
    wait "$node_pid" || node_status=$?
    cat "$node_log"
    [ "$node_status" = 0 ] || exit 1
fi
exit "$go_status"
