#!/bin/sh
# Has the Java library lsp4j talk to a bridge in the sandbox. Usage: run.sh PYTHON BUILD_DIRECTORY
# Asks for Java 17 and Maven, and for the Maven repository at the first run; no part of `make check`.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
for tool in java mvn; do
    command -v "$tool" >/dev/null 2>&1 || {
        echo "interop: $tool is needed; install a JDK (17 or newer) and Maven." >&2
        exit 1
    }
done
exec mvn --batch-mode --quiet --file "$here/pom.xml" "-Dbuild.folder=$2" compile exec:java "-Dexec.args=$1 -m bridge --sandbox"
