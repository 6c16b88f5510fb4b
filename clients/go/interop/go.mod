// A module of its own, so that the client itself has no dependency.
module anticaptcha-report-bridge/interop

// The client needs 1.22; this much is what jrpc2 and staticcheck ask for in their own go.mod.
go 1.26.0

require github.com/creachadair/jrpc2 v1.3.6

require (
	github.com/BurntSushi/toml v1.4.1-0.20240526193622-a339e1f7089c // indirect
	github.com/creachadair/mds v0.31.0 // indirect
	golang.org/x/exp/typeparams v0.0.0-20231108232855-2478ac86f678 // indirect
	golang.org/x/mod v0.41.0 // indirect
	golang.org/x/sync v0.24.0 // indirect
	golang.org/x/tools v0.51.0 // indirect
	honnef.co/go/tools v0.8.2 // indirect
)

tool honnef.co/go/tools/cmd/staticcheck
