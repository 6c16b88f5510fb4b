package reportbridge

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"time"
)

// patience has the waits of a child's end; tests shorten them.
type patience struct {
	answers time.Duration // for the rest of the answers, or the exit code, once one of the two is there
	leave   time.Duration // for the process to go by itself after that
	drain   time.Duration // from SIGTERM to SIGKILL, longer than the bridge's own drain
}

var usualPatience = patience{answers: time.Second, leave: 4 * time.Second, drain: 10 * time.Second}

const (
	stderrLines   = 20
	stderrLineMax = 8 << 10
	// lateAnswersKept bounds what is remembered of calls that gave up before their answer.
	lateAnswersKept = 4096
)

// child is one bridge process. Goroutines: a writer (outbox.run), readStdout, readStderr, one that waits
// for the process, and watch, which outlives the others.
type child struct {
	process  *os.Process
	patience patience
	out      *outbox
	log      *logbook

	stdout, stderr *os.File
	exited         chan struct{} // the process has ended; state is set
	state          *os.ProcessState
	stdoutEnded    chan struct{}
	stderrEnded    chan struct{}
	down           chan struct{} // every waiting call has failed
	gone           chan struct{} // nothing is left of the child

	mu      sync.Mutex
	waiting map[int64]chan reply
	gaveUp  map[int64]struct{}
	ended   bool
	tail    []string
	maxLine int
}

// reply is what a waiting call is told: an answer, or (both nil) that the child is down.
type reply struct {
	result json.RawMessage
	err    *wireError
}

func startChild(plan launch, maxAnswer int, wait patience, log *logbook) (*child, error) {
	var ours, theirs []*os.File
	closeAll := func(files []*os.File) {
		for _, file := range files {
			_ = file.Close()
		}
	}
	for i := range 3 {
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(ours)
			closeAll(theirs)
			return nil, fmt.Errorf("report-bridge: %w", err)
		}
		if i == 0 {
			r, w = w, r
		}
		ours, theirs = append(ours, r), append(theirs, w)
	}
	cmd := exec.Command(plan.path, plan.args...)
	cmd.Dir, cmd.Env = plan.dir, plan.env()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = theirs[0], theirs[1], theirs[2]
	ownGroup(cmd)
	err := cmd.Start()
	closeAll(theirs)
	if err != nil {
		closeAll(ours)
		return nil, explainStart(plan, err)
	}
	c := &child{
		process: cmd.Process, patience: wait, out: newOutbox(), log: log,
		stdout: ours[1], stderr: ours[2], maxLine: maxAnswer,
		exited: make(chan struct{}), stdoutEnded: make(chan struct{}), stderrEnded: make(chan struct{}),
		down: make(chan struct{}), gone: make(chan struct{}),
		waiting: make(map[int64]chan reply), gaveUp: make(map[int64]struct{}),
	}
	written := make(chan struct{})
	go func() { defer close(written); c.out.run(ours[0]) }()
	go c.readStdout()
	go c.readStderr()
	go func() { defer close(c.exited); _ = cmd.Wait(); c.state = cmd.ProcessState }()
	go c.watch(ours[0], written)
	return c, nil
}

// watch waits for the child's end, whichever side of it shows first, and sees to it that it is whole.
func (c *child) watch(stdin *os.File, written chan struct{}) {
	select {
	case <-c.exited:
	case <-c.stdoutEnded:
	case <-c.out.failed:
	}
	c.out.abort()
	_ = stdin.Close() // wakes a writer that is stuck in a full pipe
	within(c.patience.answers, c.stdoutEnded)
	within(c.patience.answers, c.exited)
	within(c.patience.answers/4, c.stderrEnded)
	c.failWaiting()
	close(c.down)

	if !within(c.patience.leave, c.exited, c.stdoutEnded) {
		c.terminate()
	}
	// Whoever still holds the pipes is not ours to wait for.
	within(c.patience.answers, c.stderrEnded)
	_ = c.stdout.Close()
	_ = c.stderr.Close()
	<-c.stdoutEnded
	<-c.stderrEnded
	<-written
	<-c.exited
	close(c.gone)
}

// terminate ends the process group: SIGTERM, a wait longer than the bridge's drain, SIGKILL.
func (c *child) terminate() {
	if within(0, c.exited, c.stdoutEnded) {
		return // nobody is left, and the number of the group may be somebody else's by now
	}
	terminateGroup(c.process)
	c.mu.Lock()
	drain := c.patience.drain
	c.mu.Unlock()
	if !within(drain, c.exited, c.stdoutEnded) {
		killGroup(c.process)
		<-c.exited
	}
}

func (c *child) setDrain(drain time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.patience.drain = drain
}

// within waits until all channels are closed; false if that takes longer than limit.
func within(limit time.Duration, all ...<-chan struct{}) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for _, one := range all {
		select {
		case <-one:
		default:
			select {
			case <-one:
			case <-timer.C:
				return false
			}
		}
	}
	return true
}

// expect registers a call; false if the child is down.
func (c *child) expect(id int64) (chan reply, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return nil, false
	}
	answer := make(chan reply, 1)
	c.waiting[id] = answer
	return answer, true
}

// forget takes back expect. If the request was sent, its answer is still awaited, so as not to be counted
// as a stray.
func (c *child) forget(id int64, sent bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
	if !sent {
		return
	}
	if len(c.gaveUp) >= lateAnswersKept {
		for old := range c.gaveUp {
			delete(c.gaveUp, old)
			break
		}
	}
	c.gaveUp[id] = struct{}{}
}

func (c *child) failWaiting() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	for id, answer := range c.waiting {
		delete(c.waiting, id)
		answer <- reply{}
	}
}

func (c *child) lastWords() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.tail...)
}

// death describes the end; with the process still there, what is known so far.
func (c *child) death(reason string) *DownError {
	d := &DownError{Reason: reason, ExitCode: -1}
	select {
	case <-c.exited:
		d.ExitCode, d.Signal = c.state.ExitCode(), endedBy(c.state)
	default:
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended { // while it lives, its lines are about other calls
		d.Stderr = append([]string(nil), c.tail...)
	}
	return d
}
