package reportbridge

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"
)

const (
	// DefaultTimeout ends a call whose context has no deadline: the 60 s window of a report, one attempt
	// of 10 s, and room to answer.
	DefaultTimeout = 75 * time.Second

	// DefaultMaxAnswer is the longest answer line that is accepted, in bytes; a page of 1,000 records is
	// about 300,000.
	DefaultMaxAnswer = 8 << 20
)

// Options say how to start and watch a bridge. The zero value starts the command found in the
// environment with the settings found there.
type Options struct {
	// Path of the command; a relative one is from this process's working directory, whatever Dir is. Default:
	// the variable REPORT_BRIDGE_BIN, then report-bridge on PATH.
	Path string

	// Args are put after the command as they are, such as flags of report-bridge.
	Args []string

	// Env is the child's environment, "name=value" each. Default: that of this process.
	Env []string

	// Dir is the child's working directory. Default: that of this process.
	Dir string

	// ClientKey is the account key, handed over in the environment. It takes the place of every other
	// source of a key. Default: the sources of the bridge's settings.
	ClientKey string

	// KeyFile names a file that holds the key and nothing else. Not together with ClientKey.
	KeyFile string

	// Sandbox serves from a built-in simulator: no account needed, nothing leaves the machine.
	Sandbox bool

	// URL is the upstream's base address. Default: the real one.
	URL string

	// Ledger is a file path, "memory", or a database URL, which the sandbox does not take. Default: a file in
	// the user's state directory, in the sandbox "memory".
	Ledger string

	// Timeout ends a call whose context has no deadline. Default: DefaultTimeout.
	Timeout time.Duration

	// MaxAnswer is the longest answer line accepted, in bytes. Default: DefaultMaxAnswer.
	MaxAnswer int

	// Restart starts the bridge again when it ends by itself. Default: it stays down.
	Restart *RestartPolicy

	// OnStderr is told each line of the child's standard error.
	//
	// The callbacks run one after another on a goroutine of their own: a slow one delays the
	// others and in the end loses some (Stats.DroppedNotices), but never the bridge.
	OnStderr func(line string)

	// OnProtocolError is told what came from the child and is no answer to a call.
	OnProtocolError func(ProtocolError)

	// OnDown is told each time the bridge ended by itself or could not be started again.
	OnDown func(*DownError)

	// OnPause is told each pause of sending once, from the first answer that has it.
	OnPause func(Pause)

	// OnAdvice is told why reports may be worth nothing: a kind, and a sentence with the figures, once an hour
	// for each account.
	OnAdvice func(Warning)
}

// RestartPolicy says when a bridge that ended by itself is started again. The zero value is a good one.
// Calls that were under way fail with a *DownError; later calls wait for the new bridge.
type RestartPolicy struct {
	// FirstDelay is the wait before the first start; each further one waits twice as long. Default 100 ms.
	FirstDelay time.Duration

	// MaxDelay bounds the wait. Default 10 s.
	MaxDelay time.Duration

	// MaxInARow starts without 30 s of life in between are tried, then the bridge stays down. Default 10;
	// below 0: no bound.
	MaxInARow int
}

const (
	healthyAfter   = 30 * time.Second
	exitBadUsage   = 2
	exitBadConfig  = 3
	startTimeout   = 30 * time.Second
	noticesWaiting = 1024
)

func (p RestartPolicy) withDefaults() RestartPolicy {
	if p.FirstDelay <= 0 {
		p.FirstDelay = 100 * time.Millisecond
	}
	if p.MaxDelay <= 0 {
		p.MaxDelay = 10 * time.Second
	}
	if p.MaxInARow == 0 {
		p.MaxInARow = 10
	}
	return p
}

// delay is the wait before start number n in a row, counted from 1.
func (p RestartPolicy) delay(n int) time.Duration {
	delay := p.FirstDelay
	for i := 1; i < n && delay < p.MaxDelay; i++ {
		delay *= 2
	}
	return min(delay, p.MaxDelay)
}

// String shows the options without secrets.
func (o Options) String() string {
	var parts []string
	say := func(name, value string) {
		if value != "" {
			parts = append(parts, name+":"+value)
		}
	}
	say("Path", o.Path)
	if len(o.Args) > 0 {
		say("Args", fmt.Sprintf("(%d)", len(o.Args)))
	}
	if o.Env != nil {
		say("Env", fmt.Sprintf("(%d)", len(o.Env)))
	}
	say("Dir", o.Dir)
	say("ClientKey", mask(o.ClientKey))
	say("KeyFile", o.KeyFile)
	if o.Sandbox {
		say("Sandbox", "true")
	}
	say("URL", o.URL)
	if strings.Contains(o.Ledger, "@") {
		say("Ledger", masked)
	} else {
		say("Ledger", o.Ledger)
	}
	if o.Timeout != 0 {
		say("Timeout", o.Timeout.String())
	}
	if o.Restart != nil {
		say("Restart", fmt.Sprintf("%+v", *o.Restart))
	}
	return "reportbridge.Options{" + strings.Join(parts, " ") + "}"
}

// GoString is String: %#v must not show the key either.
func (o Options) GoString() string { return o.String() }

// Format writes String for every verb.
func (o Options) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, o.String()) }

// LogValue is String, so that log/slog does not show the key.
func (o Options) LogValue() slog.Value { return slog.StringValue(o.String()) }

// MarshalJSON is String: options are not meant to be stored.
func (o Options) MarshalJSON() ([]byte, error) { return marshal(o.String()) }
