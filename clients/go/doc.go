// Package reportbridge tells Anti-Captcha.com that a captcha answer was wrong or right, through the
// command report-bridge.
//
// Start runs the command as a child process and speaks JSON-RPC 2.0 with it over its standard input and
// output. Every method of Bridge may be called from any number of goroutines at the same time.
//
//	bridge, err := reportbridge.Start(ctx, reportbridge.Options{Sandbox: true})
//	if err != nil { ... }
//	defer bridge.Close(ctx)
//	result, err := bridge.ReportIncorrectRecaptcha(ctx, reportbridge.ReportParams{TaskID: 7654321})
//
// # Errors
//
// A call fails with one of three types, found with errors.As:
//
//   - [*ReportError]: the bridge answered that the report was not taken. Its Outcome says whether it was
//     refused, certainly never sent, or perhaps taken; Retryable whether the same call may help now.
//   - [*CallError]: the call was wrong (parameters), or a bridge.* method refused it.
//   - [*DownError]: no usable answer came, because the bridge ended, a deadline passed or the context was
//     cancelled. Outcome is unknown if the request may have been read, not_sent if it never left.
//
// # When repeating a call is safe
//
// The bridge sends one report for a task, whatever is asked. So after a DownError the same call may always
// be repeated if the bridge keeps its ledger in a file or a server, as it does by default: the answer is
// then the stored one, or that of the attempt under way. With the ledger "memory" (the sandbox's
// default) a repeated call is safe as long as the bridge process is the same.
//
// # Tasks
//
// Bridge.Task makes a [Task] from what createTask and getTaskResult said. It picks the report method by the
// task's type, passes its end, and notes that it was solved.
//
// # Time
//
// A call ends with its context. If that has no deadline, it ends after Options.Timeout (75 seconds, longer
// than any report takes). Giving up sends $/cancelRequest, so a report that has not begun is not sent; one
// that has begun ends in the ledger as it ends.
//
// # The key
//
// The client key reaches the child in its environment, never on a command line. Options, Bridge and the
// parameter types print *** in its place.
package reportbridge
