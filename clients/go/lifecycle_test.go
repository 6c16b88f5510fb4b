//go:build unix

package reportbridge

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// With a restart policy a call after the death waits for the next bridge.
func TestRestart(t *testing.T) {
	marker := filepath.Join(t.TempDir(), "died")
	b := startFake(t, "dies-once", func(o *Options) {
		o.Env = append(o.Env, relayVariable+"="+marker)
		o.Restart = &RestartPolicy{FirstDelay: time.Millisecond}
	})
	var down *DownError
	if _, err := b.ReportIncorrectRecaptcha(soon(t, 30*time.Second), ReportParams{TaskID: 7}); !errors.As(err, &down) || down.Outcome != OutcomeUnknown {
		t.Fatalf("got %v", err)
	}
	result, err := b.ReportIncorrectRecaptcha(soon(t, 30*time.Second), ReportParams{TaskID: 7})
	if err != nil || result.TaskID != 7 {
		t.Fatalf("got %+v, %v", result, err)
	}
	if n := b.Stats().Restarts; n != 1 {
		t.Errorf("%d restarts", n)
	}
	if err := b.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// A bridge that keeps dying is given up after the agreed number of starts.
func TestRestartGivesUp(t *testing.T) {
	b := startFake(t, "dies", func(o *Options) {
		o.Restart = &RestartPolicy{FirstDelay: time.Millisecond, MaxDelay: 2 * time.Millisecond, MaxInARow: 2}
	})
	var down *DownError
	for range 3 {
		if _, err := b.ReportIncorrectRecaptcha(soon(t, 30*time.Second), ReportParams{TaskID: 7}); !errors.As(err, &down) || down.Outcome != OutcomeUnknown {
			t.Fatalf("got %v", err)
		}
	}
	if _, err := b.ReportIncorrectRecaptcha(soon(t, 30*time.Second), ReportParams{TaskID: 7}); !errors.As(err, &down) || down.Outcome != OutcomeNotSent {
		t.Fatalf("got %v", err)
	}
	if n := b.Stats().Restarts; n != 2 {
		t.Errorf("%d restarts", n)
	}
}

// A bridge that cannot use its settings is not started again: they are still the same.
func TestRestartIsNotTriedWithoutHope(t *testing.T) {
	b := startFake(t, "dies-of-its-settings", func(o *Options) { o.Restart = &RestartPolicy{FirstDelay: time.Millisecond} })
	for _, want := range []Outcome{OutcomeUnknown, OutcomeNotSent} {
		var down *DownError
		_, err := b.ReportIncorrectRecaptcha(soon(t, 30*time.Second), ReportParams{TaskID: 7})
		if !errors.As(err, &down) || down.Outcome != want || down.ExitCode != exitBadConfig {
			t.Errorf("got %v", err)
		}
	}
	if n := b.Stats().Restarts; n != 0 {
		t.Errorf("%d restarts", n)
	}
}

// The waits of a restart double up to their bound.
func TestRestartDelays(t *testing.T) {
	policy := RestartPolicy{FirstDelay: 100 * time.Millisecond, MaxDelay: time.Second}.withDefaults()
	for n, want := range map[int]time.Duration{1: 100, 2: 200, 3: 400, 4: 800, 5: 1000, 5000: 1000} {
		if got := policy.delay(n); got != want*time.Millisecond {
			t.Errorf("delay(%d) = %v", n, got)
		}
	}
}

// Close is patient with answers, harsh with a stubborn child, and may be called again.
func TestClose(t *testing.T) {
	t.Run("waits for what was accepted", func(t *testing.T) {
		b := startFake(t, "slow", nil)
		answered := make(chan error, 1)
		go func() {
			_, err := b.ReportIncorrectRecaptcha(context.Background(), ReportParams{TaskID: 7})
			answered <- err
		}()
		for b.log.lastID.Load() == 0 || b.current.out.isOpen() && len(b.waitingCalls()) == 0 {
			time.Sleep(time.Millisecond)
		}
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-answered; err != nil {
			t.Error(err)
		}
		_, err := b.Info(context.Background())
		if !errors.Is(err, ErrClosed) {
			t.Errorf("a later call: %v", err)
		}
		if err := b.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	t.Run("kills what does not go", func(t *testing.T) {
		b := startFake(t, "stubborn", nil)
		again := make(chan error, 1)
		go func() { again <- b.Close(soon(t, time.Millisecond)) }()
		var down *DownError
		if err := b.Close(soon(t, 10*time.Millisecond)); !errors.As(err, &down) || down.Signal != syscall.SIGKILL {
			t.Errorf("got %v", err)
		}
		if err := <-again; !errors.As(err, &down) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("works from a callback", func(t *testing.T) {
		var b *Bridge
		ready, done := make(chan struct{}), make(chan struct{})
		b = startFake(t, "garbage", func(o *Options) {
			o.OnProtocolError = func(ProtocolError) {
				<-ready
				_ = b.Close(context.Background())
				select {
				case <-done:
				default:
					close(done)
				}
			}
		})
		close(ready)
		_, _ = b.ReportIncorrectRecaptcha(soon(t, 30*time.Second), ReportParams{TaskID: 7})
		<-done
	})
}

func (b *Bridge) waitingCalls() []int64 {
	b.current.mu.Lock()
	defer b.current.mu.Unlock()
	var ids []int64
	for id := range b.current.waiting {
		ids = append(ids, id)
	}
	return ids
}

// Start fails with what the child said if it ends, speaks another protocol or stays mute.
func TestStartFails(t *testing.T) {
	for mode, part := range map[string]string{
		"config-error": "the configuration cannot be used", "other-protocol": "protocol 2", "mute": "is it report-bridge?",
	} {
		t.Run(mode, func(t *testing.T) {
			checkLeaks(t)
			ctx := context.Background()
			if mode == "mute" {
				ctx = soon(t, 300*time.Millisecond)
			}
			_, err := start(ctx, fakeOptions(t, mode), quick)
			var down *DownError
			if !errors.As(err, &down) || !strings.Contains(err.Error(), part) {
				t.Fatalf("got %v", err)
			}
			if mode == "config-error" && down.ExitCode != 3 {
				t.Errorf("exit code %d", down.ExitCode)
			}
		})
	}
}
