//go:build unix

package reportbridge

import (
	"context"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A bridge that says more, or says it oddly, still answers, and what was odd is counted.
func TestNoiseIsToleratedAndTold(t *testing.T) {
	for mode, kinds := range map[string][]string{
		"good": nil, "slow": nil, "crlf": nil, "byte-by-byte": nil,
		"garbage":   {ProtocolNotJSON, ProtocolNotAnswer, ProtocolNotAnswer, ProtocolNoID},
		"twice":     {ProtocolDuplicate},
		"stranger":  {ProtocolUnknownID},
		"long-line": {ProtocolTooLong},
	} {
		t.Run(mode, func(t *testing.T) {
			told := make(chan ProtocolError, 10)
			b := startFake(t, mode, func(o *Options) {
				o.MaxAnswer = 1 << 20
				o.OnProtocolError = func(e ProtocolError) { told <- e }
			})
			for taskID := range int64(2) {
				result, err := b.ReportIncorrectRecaptcha(soon(t, 30*time.Second), ReportParams{TaskID: taskID + 1})
				if err != nil || result.TaskID != taskID+1 {
					t.Fatalf("got %+v, %v", result, err)
				}
			}
			if err := b.Close(context.Background()); err != nil {
				t.Fatal(err)
			}
			var got []string
			for len(told) > 0 {
				got = append(got, (<-told).Kind)
			}
			if want := append(slices.Clone(kinds), kinds...); !slices.Equal(got, want) {
				t.Errorf("told %v, want %v", got, want)
			}
			if n := b.Stats().ProtocolErrors; n != int64(2*len(kinds)) {
				t.Errorf("counted %d protocol errors", n)
			}
		})
	}
}

// A call whose context ends before the answer fails with outcome unknown and the context's error.
func TestDeadlineAndCancellation(t *testing.T) {
	b := startFake(t, "never", func(o *Options) { o.Timeout = 500 * time.Millisecond })
	for name, want := range map[string]struct {
		context func() context.Context
		err     error
	}{
		"deadline": {func() context.Context { return soon(t, 50*time.Millisecond) }, context.DeadlineExceeded},
		"cancellation": {func() context.Context {
			ctx, cancel := context.WithCancel(context.Background())
			time.AfterFunc(100*time.Millisecond, cancel)
			return ctx
		}, context.Canceled},
		"default": {context.Background, context.DeadlineExceeded},
	} {
		_, err := b.ReportIncorrectRecaptcha(want.context(), ReportParams{TaskID: 7})
		var down *DownError
		if !errors.As(err, &down) || !errors.Is(err, want.err) {
			t.Fatalf("%s: got %v", name, err)
		}
		if down.Outcome != OutcomeUnknown || down.TaskID != 7 || down.ExitCode != -1 || down.Signal != nil {
			t.Errorf("%s: got %+v", name, down)
		}
	}
}

// A request that the bridge never read is certainly not sent, and giving up on many keeps no memory.
func TestUnwrittenRequestsAreNotSent(t *testing.T) {
	b := startFake(t, "deaf", nil)
	long := strings.Repeat("x", 100_000)
	_, err := b.ReportIncorrectRecaptcha(soon(t, time.Second), ReportParams{TaskID: 1, TaskType: long})
	var down *DownError
	if !errors.As(err, &down) || down.Outcome != OutcomeUnknown {
		t.Fatalf("the first one fills the pipe: %v", err)
	}
	for range 50 {
		_, err := b.ReportIncorrectRecaptcha(soon(t, 5*time.Millisecond), ReportParams{TaskID: 2, TaskType: long})
		if !errors.As(err, &down) || down.Outcome != OutcomeNotSent || !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
	}
	b.current.out.mu.Lock()
	defer b.current.out.mu.Unlock()
	if n := len(b.current.out.queue); n > 1 {
		t.Errorf("%d frames are left", n)
	}
}

// When the bridge dies, open calls fail with what is known of its end, and later ones as not sent.
func TestDeathIsDescribed(t *testing.T) {
	const key, ownKey = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
	for mode, want := range map[string]struct {
		code   int
		signal os.Signal
	}{"dies": {70, nil}, "killed": {-1, syscall.SIGKILL}} {
		t.Run(mode, func(t *testing.T) {
			var downs atomic.Int64
			b := startFake(t, mode, func(o *Options) {
				o.ClientKey = key
				o.OnDown = func(*DownError) { downs.Add(1) }
			})
			_, err := b.ReportIncorrectRecaptcha(soon(t, 30*time.Second), ReportParams{TaskID: 7, ClientKey: ownKey})
			var down *DownError
			if !errors.As(err, &down) {
				t.Fatalf("got %v", err)
			}
			if down.Outcome != OutcomeUnknown || down.TaskID != 7 || down.ExitCode != want.code || down.Signal != want.signal {
				t.Errorf("got %+v", down)
			}
			if mode == "dies" && !slices.Equal(down.Stderr, []string{"about to die", "got *** and ***"}) {
				t.Errorf("last lines: %q", down.Stderr)
			}
			_, err = b.Info(soon(t, 30*time.Second))
			if !errors.As(err, &down) || down.ExitCode != want.code || down.Outcome != "" {
				t.Errorf("a later call: %v", err)
			}
			_, err = b.ReportIncorrectRecaptcha(soon(t, 30*time.Second), ReportParams{TaskID: 8})
			if !errors.As(err, &down) || down.Outcome != OutcomeNotSent {
				t.Errorf("a later report: %v", err)
			}
			if err := b.Close(context.Background()); !errors.As(err, &down) || down.ExitCode != want.code {
				t.Errorf("close: %v", err)
			}
			if downs.Load() != 1 {
				t.Errorf("told %d times", downs.Load())
			}
		})
	}
}

// A bridge without standard output is of no use: its calls fail, and it is ended.
func TestClosedStdout(t *testing.T) {
	b := startFake(t, "closes-stdout", nil)
	_, err := b.ReportIncorrectRecaptcha(soon(t, 30*time.Second), ReportParams{TaskID: 7})
	var down *DownError
	if !errors.As(err, &down) || errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	select {
	case <-b.finished:
	case <-time.After(30 * time.Second):
		t.Error("the child is still there")
	}
}

// A process that the command left behind with its pipes is ended with the group.
func TestHeirOfThePipes(t *testing.T) {
	b := startFake(t, "leaves-heir", nil)
	_, err := b.ReportIncorrectRecaptcha(soon(t, 30*time.Second), ReportParams{TaskID: 7})
	var down *DownError
	if !errors.As(err, &down) || down.Outcome != OutcomeUnknown || down.ExitCode != 0 {
		t.Fatalf("got %v", err)
	}
	select {
	case <-b.finished:
	case <-time.After(30 * time.Second):
		t.Error("the pipes are still held")
	}
	heir, err := strconv.Atoi(down.Stderr[0])
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); isAlive(heir); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			_ = syscall.Kill(heir, syscall.SIGKILL)
			t.Fatal("the heir is still there")
		}
	}
}

// A flood of standard error does not stop the answers, even with a slow listener.
func TestFloodOfStderr(t *testing.T) {
	wait := make(chan struct{})
	b := startFake(t, "flood", func(o *Options) { o.OnStderr = func(string) { <-wait } })
	_, err := b.ReportIncorrectRecaptcha(soon(t, 60*time.Second), ReportParams{TaskID: 7})
	close(wait)
	if err != nil {
		t.Fatal(err)
	}
	if b.Stats().DroppedNotices == 0 {
		t.Error("nothing was dropped")
	}
}

// A result of another shape ends the call with outcome unknown instead of zeros.
func TestResultOfAnotherShape(t *testing.T) {
	b := startFake(t, "bad-result", nil)
	_, err := b.ReportIncorrectRecaptcha(soon(t, 30*time.Second), ReportParams{TaskID: 7})
	var down *DownError
	if !errors.As(err, &down) || down.Outcome != OutcomeUnknown {
		t.Errorf("got %v", err)
	}
}

// A request above the bridge's limit is refused here: the bridge could not say whose it was.
func TestRequestAboveTheLimit(t *testing.T) {
	b := startFake(t, "good", nil)
	_, err := b.ReportIncorrectRecaptcha(soon(t, 30*time.Second), ReportParams{TaskID: 7, TaskType: strings.Repeat("x", 1<<20)})
	var wrong *CallError
	if !errors.As(err, &wrong) || wrong.Code != CodeInvalidRequest {
		t.Errorf("got %v", err)
	}
}
