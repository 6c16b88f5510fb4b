#!/bin/sh
# Checks the Node and Go clients, each with its own tools. A tool that is missing is named, and the
# client left out; where CI is set that is an error, so that nothing is skipped unseen.
set -eu
cd "$(dirname "$0")/.."
PATH="$PWD/.venv/bin:$PATH"
export PATH

missing() {
    if [ -n "${CI:-}" ]; then
        echo "check: $1 is missing, and with CI set nothing may be left out" >&2
        exit 1
    fi
    echo "check: $1 is missing, so $2 was left out"
}

if [ -f clients/node/package.json ]; then
    if command -v node >/dev/null 2>&1 && command -v npm >/dev/null 2>&1; then
        (cd clients/node && { [ -d node_modules ] || npm ci --silent --no-audit --no-fund; } && npm run --silent check)
    else
        missing "Node.js with npm" "the Node client"
    fi
fi
if [ -f clients/go/go.mod ]; then
    if command -v go >/dev/null 2>&1; then
        (cd clients/go && test -z "$(gofmt -l .)" && go vet ./... && go test ./...)
    else
        missing "Go" "the Go client"
    fi
fi
