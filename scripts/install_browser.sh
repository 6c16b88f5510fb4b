#!/bin/sh
# Finds the browser that the page of `report-bridge stats --html` is tested in, or installs Debian's.
# Prints its path. Without one the tests of the page fail and say so; with CI set this script fails first.
set -eu

find_browser() {
	for name in chromium chromium-browser google-chrome google-chrome-stable; do
		if command -v "$name" 2>/dev/null; then
			return 0
		fi
	done
	return 1
}

if find_browser; then
	exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
	export DEBIAN_FRONTEND=noninteractive
	if { apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium fonts-dejavu-core; } >/dev/null; then
		find_browser && exit 0
	fi
fi
echo "install_browser: no Chromium or Chrome on PATH; install the package chromium" >&2
[ -z "${CI:-}" ]
