// The path has no host on purpose: the project has no published home yet, and a path without a host
// cannot be fetched from a stranger's. See README.md, "Install".
module anticaptcha-report-bridge/reportbridge

go 1.22
