package reportbridge

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
)

// ErrClosed is in the chain of the error of a call made after Close.
var ErrClosed = errors.New("the bridge is closed")

// errNil says that a method of a nil *Bridge was called.
var errNil = errors.New("there is no bridge: Start returned an error")

// ReportError says that a report was not taken. Match on Kind or Code; Message may be reworded.
type ReportError struct {
	// Code is positive if the upstream refused (its errorId), negative if the bridge did.
	Code int64

	// Kind is finer than Code: one of the Kind constants, or one of a later version.
	Kind string

	// Message is one sentence for people.
	Message string

	// Outcome is empty only for a conflict with a report that is still under way.
	Outcome Outcome

	// Retryable is true only if nothing was sent and the same call may help now.
	Retryable bool

	// Hints are possible reasons, the most likely first.
	Hints []Hint

	// Data is everything the bridge said, Raw the same as it came.
	Data ReportErrorData
	Raw  json.RawMessage

	// Method and TaskID are those of the call.
	Method string
	TaskID int64
}

// Error is one line for people.
func (e *ReportError) Error() string {
	text := fmt.Sprintf("report-bridge: %s of task %d: %s (%d)", e.Method, e.TaskID, e.Kind, e.Code)
	if e.Outcome != "" {
		text += ", outcome " + string(e.Outcome)
	}
	text += ": " + e.Message
	if len(e.Hints) > 0 {
		text += " Perhaps: " + e.Hints[0].Message
	}
	return text
}

// CallError says that the call itself was refused: wrong parameters, an internal error of the bridge, or
// an error of a bridge.* method. A call refused with -32603 (internal_error) may have sent its report;
// with every other code nothing was sent.
type CallError struct {
	Code       int64
	Kind       string
	Message    string
	Rule       string // that was broken: a JSON Schema keyword for parameters, else a word of the bridge; may be empty
	Suggestion string // a name of the bridge's own that was perhaps meant, or empty
	Data       ProtocolErrorData
	Raw        json.RawMessage
	Method     string
	TaskID     int64 // 0 if the call is about no task
}

// Error is one line for people.
func (e *CallError) Error() string {
	text := fmt.Sprintf("report-bridge: %s: %s (%d): %s", e.Method, e.Kind, e.Code, e.Message)
	if e.Data.Sentence != "" {
		text += " " + e.Data.Sentence
	}
	if e.Suggestion != "" {
		text += " Did you mean " + e.Suggestion + "?"
	}
	if e.Data.Reference != "" {
		text += " Reference " + e.Data.Reference + " in the log."
	}
	return text
}

// DownError says that no usable answer came: the bridge ended or could not start, a deadline passed, the
// context was cancelled, or the bridge was closed. The package comment says when repeating is safe.
type DownError struct {
	// Outcome is OutcomeUnknown if the bridge may have read the report, OutcomeNotSent if the request
	// never left this process, and empty if the call was not a report.
	Outcome Outcome

	// Method and TaskID are those of the call, empty if there was none.
	Method string
	TaskID int64

	// Reason is what happened, in words for people.
	Reason string

	// ExitCode is that of the child; -1 if it runs, was ended by a signal or was never started.
	ExitCode int

	// Signal ended the child; nil if none did.
	Signal os.Signal

	// Stderr has the last lines of the child's standard error, at most 20, if it died.
	Stderr []string

	cause error
}

// Error is one line for people.
func (e *DownError) Error() string {
	text := "report-bridge: "
	if e.Method != "" {
		text += e.Method
		if e.TaskID != 0 {
			text += fmt.Sprintf(" of task %d", e.TaskID)
		}
		text += ": "
	}
	text += e.Reason
	if e.Outcome != "" {
		text += ", outcome " + string(e.Outcome)
	}
	if e.ExitCode >= 0 {
		text += fmt.Sprintf(", exit code %d", e.ExitCode)
	}
	if e.Signal != nil {
		text += ", signal: " + e.Signal.String()
	}
	if n := len(e.Stderr); n > 0 {
		text += "; last line of its standard error: " + strings.TrimSpace(e.Stderr[n-1])
	}
	return text
}

// Unwrap gives context.Canceled or context.DeadlineExceeded if giving up was local, ErrClosed after Close.
func (e *DownError) Unwrap() error { return e.cause }

// ProtocolError is a line of the child's standard output that is no answer to a call. It does no harm.
type ProtocolError struct {
	// Kind is one of the Protocol constants.
	Kind string

	// Excerpt is the beginning of the line, at most 200 bytes, known keys masked.
	Excerpt string

	// Bytes is the length of the line.
	Bytes int64
}

// The values of ProtocolError.Kind.
const (
	ProtocolNotJSON     = "not_json"
	ProtocolNotAnswer   = "not_an_answer"
	ProtocolUnknownID   = "unknown_id"
	ProtocolDuplicate   = "duplicate_answer"
	ProtocolNoID        = "error_without_id"
	ProtocolTooLong     = "too_long"
	ProtocolBadContents = "bad_contents"
)

// Error is one line for people.
func (e ProtocolError) Error() string {
	return fmt.Sprintf("report-bridge: %s in a line of %d bytes: %q", e.Kind, e.Bytes, e.Excerpt)
}

type wireError struct {
	Code    *int64          `json:"code"`
	Message string          `json:"message"`
	Data    json.RawMessage `json:"data"`
}

// refusal turns an error of the wire into the type that fits.
func refusal(call callee, e *wireError) error {
	var mark struct {
		Kind       string
		Retryable  *bool
		Rule       string
		Suggestion string
	}
	_ = json.Unmarshal(e.Data, &mark) // what does not fit stays empty: Raw has it all
	if call.isReport && (*e.Code > 0 || mark.Retryable != nil) {
		refused := &ReportError{Code: *e.Code, Message: e.Message, Raw: e.Data, Method: call.method, TaskID: call.taskID}
		_ = json.Unmarshal(e.Data, &refused.Data)
		refused.Kind, refused.Retryable, refused.Hints = refused.Data.Kind, refused.Data.Retryable, refused.Data.Hints
		if refused.Data.Outcome != nil {
			refused.Outcome = *refused.Data.Outcome
		}
		return refused
	}
	wrong := &CallError{Code: *e.Code, Kind: mark.Kind, Message: e.Message, Raw: e.Data, Method: call.method, TaskID: call.taskID}
	wrong.Rule, wrong.Suggestion = mark.Rule, mark.Suggestion
	_ = json.Unmarshal(e.Data, &wrong.Data)
	return wrong
}
