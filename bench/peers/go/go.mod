module anticaptcha-report-bridge/bench

go 1.22

require anticaptcha-report-bridge/reportbridge v0.0.0

replace anticaptcha-report-bridge/reportbridge => ../../../clients/go
