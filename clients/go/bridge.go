package reportbridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"
)

const (
	protocolVersion = 1

	// firstID is the id of the client's own first question to each child; calls count from 1.
	firstID = 0
)

// Bridge is a running report-bridge. Its methods may be called at the same time. Close it at the end.
type Bridge struct {
	plan     launch
	timeout  time.Duration
	maxLine  int
	restart  *RestartPolicy
	patience patience
	log      *logbook
	notes    notes
	stop     context.Context // done from the first Close on
	stopNow  context.CancelFunc
	finished chan struct{} // no child is left, and none will be started

	mu       sync.Mutex
	current  *child        // takes calls; nil while there is none
	latest   *child        // started last, up or not
	info     *BridgeInfo   // of current
	downFor  *DownError    // why there will be none any more
	changed  chan struct{} // closed and replaced at each change of the above
	isClosed bool
}

// Start starts a bridge and waits until it answers. The context ends the wait only, not the bridge.
//
// The error is a *NotFoundError if there is no such command, a *DownError with exit code and standard
// error if it ended or did not answer.
func Start(ctx context.Context, options Options) (*Bridge, error) {
	return start(ctx, options, usualPatience)
}

func start(ctx context.Context, options Options, wait patience) (*Bridge, error) {
	plan, err := planLaunch(options)
	if err != nil {
		return nil, err
	}
	b := &Bridge{
		plan: plan, timeout: options.Timeout, maxLine: options.MaxAnswer, patience: wait,
		log: newLogbook(options), finished: make(chan struct{}), changed: make(chan struct{}),
	}
	if b.timeout <= 0 {
		b.timeout = DefaultTimeout
	}
	if b.maxLine <= 0 {
		b.maxLine = DefaultMaxAnswer
	}
	if options.Restart != nil {
		policy := options.Restart.withDefaults()
		b.restart = &policy
	}
	b.notes.send = b.sendNote
	b.stop, b.stopNow = context.WithCancel(context.Background())
	c, err := b.launchChild(ctx)
	if err != nil {
		b.stopNow()
		b.log.close()
		return nil, err
	}
	go b.supervise(c)
	return b, nil
}

// launchChild starts a child, makes sure that it is a bridge of this protocol, and opens it to calls.
func (b *Bridge) launchChild(ctx context.Context) (*child, error) {
	c, err := startChild(b.plan, b.maxLine, b.patience, b.log)
	if err != nil {
		return nil, err
	}
	b.set(func() { b.latest = c })
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	defer context.AfterFunc(b.stop, cancel)()
	info, err := askChild[BridgeInfo](ctx, c, firstID, 0, callee{method: MethodBridgeInfo}, nil)
	if errors.Is(err, errNeverWritten) {
		err = c.noAnswer(callee{}, "the bridge ended at its start", "", nil)
	}
	if down := (*DownError)(nil); errors.As(err, &down) && ctx.Err() != nil {
		down.Reason = "no answer from " + b.plan.path + "; is it report-bridge?"
		down.Stderr = c.lastWords()
	}
	if err == nil && info.Protocol != protocolVersion {
		err = c.noAnswer(callee{}, fmt.Sprintf("the bridge speaks protocol %d, this client %d", info.Protocol, protocolVersion), "", nil)
	}
	if err == nil {
		err = b.stop.Err() // Close may have looked for its child before this one was there
	}
	if err != nil {
		c.out.finish()
		if !within(c.patience.answers, c.gone) {
			c.terminate()
			<-c.gone
		}
		return nil, err
	}
	if b.patience == usualPatience {
		c.setDrain(drainOf(info))
	}
	b.set(func() { b.current, b.info = c, info })
	return c, nil
}

// supervise waits for the end of each child and starts the next one if it may.
func (b *Bridge) supervise(c *child) {
	defer b.log.close()
	defer close(b.finished)
	for inARow := 0; ; {
		born := time.Now()
		<-c.down
		b.set(func() { b.current = nil })
		end := c.death("the bridge ended")
		if b.stop.Err() == nil {
			b.log.down(end)
			if b.restart == nil {
				b.set(func() { b.downFor = end })
			}
		}
		<-c.gone
		if b.restart == nil {
			return
		}
		if time.Since(born) >= healthyAfter {
			inARow = 0
		}
		if c = b.relaunch(&inARow, end); c == nil {
			return
		}
	}
}

// relaunch starts the next child, with growing waits; nil if there will be none.
func (b *Bridge) relaunch(inARow *int, end *DownError) *child {
	for {
		*inARow++
		isHopeless := end.ExitCode == exitBadUsage || end.ExitCode == exitBadConfig
		if isHopeless || b.restart.MaxInARow > 0 && *inARow > b.restart.MaxInARow {
			end.Reason += ", and is not started again"
			b.set(func() { b.downFor = end })
			b.log.down(end)
			return nil
		}
		select {
		case <-b.stop.Done():
			return nil
		case <-time.After(b.restart.delay(*inARow)):
		}
		c, err := b.launchChild(b.stop)
		if err == nil {
			b.log.counts.restarts.Add(1)
			return c
		}
		if b.stop.Err() != nil {
			return nil
		}
		if !errors.As(err, &end) {
			end = &DownError{Reason: err.Error(), ExitCode: -1, cause: err}
		}
		b.log.down(end)
	}
}

// set changes the state and wakes who waits for a change.
func (b *Bridge) set(change func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change()
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *Bridge) limit() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.info.Limits.MaxMessage
}

// acquire returns a child that takes calls, and waits for one that is being started.
func (b *Bridge) acquire(ctx context.Context, call callee) (*child, error) {
	for {
		b.mu.Lock()
		c, end, isClosed, changed := b.current, b.downFor, b.isClosed, b.changed
		b.mu.Unlock()
		notSent := func(d *DownError, cause error) error { return d.about(call, OutcomeNotSent, cause) }
		switch {
		case isClosed:
			return nil, notSent(&DownError{Reason: ErrClosed.Error(), ExitCode: -1}, ErrClosed)
		case end != nil:
			return nil, notSent(end, end.cause)
		case ctx.Err() != nil:
			return nil, notSent(&DownError{Reason: "gave up before the request was written", ExitCode: -1}, ctx.Err())
		case c != nil && c.out.isOpen():
			return c, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

// Close ends the bridge: no new calls, end of input, wait until everything accepted is answered, then, if
// the context ends first (after 75 s if it has no deadline), SIGTERM, a wait longer than the bridge's own drain,
// and SIGKILL to the process group. The child is gone when Close returns, so it may take some seconds more
// than the context allows. It may be called again, and while another Close waits.
//
// The error is a *DownError if the bridge had ended before, or did not end with exit code 0.
func (b *Bridge) Close(ctx context.Context) error {
	if b == nil {
		return nilError(callee{})
	}
	b.set(func() { b.isClosed = true })
	b.notes.flush()
	b.stopNow()
	b.mu.Lock()
	c := b.latest
	b.mu.Unlock()
	ctx, cancel := withDeadline(ctx, DefaultTimeout)
	defer cancel()
	c.out.finish()
	select {
	case <-c.gone:
	case <-ctx.Done():
		c.terminate()
		<-c.gone
	}
	<-b.finished
	within(time.Second, b.log.noticesEnd) // not for ever: Close may be called from a callback
	b.mu.Lock()
	end := b.downFor
	c = b.latest
	b.mu.Unlock()
	if end != nil {
		return end
	}
	if end = c.death("the bridge ended"); end.ExitCode != 0 {
		return end
	}
	return nil
}

// Stats counts what the bridge saw that no call was told.
func (b *Bridge) Stats() Stats {
	if b == nil {
		return Stats{}
	}
	return b.log.stats()
}

// String names the bridge and shows nothing of its settings.
func (b *Bridge) String() string {
	if b == nil {
		return "reportbridge.Bridge{nil}"
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.isClosed:
		return "reportbridge.Bridge{closed}"
	case b.current == nil:
		return "reportbridge.Bridge{down}"
	}
	return fmt.Sprintf("reportbridge.Bridge{pid %d, version %s}", b.info.PID, b.info.Version)
}

// GoString is String.
func (b *Bridge) GoString() string { return b.String() }

// Format writes String for every verb.
func (b *Bridge) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, b.String()) }
