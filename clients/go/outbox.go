package reportbridge

import (
	"io"
	"slices"
	"sync"
)

// writeSize is how many bytes are handed to the pipe at once: a pipe's usual room. What has not been
// handed over can still be withdrawn.
const writeSize = 64 << 10

// outbox is the queue of one writer goroutine. Its length is bounded by the calls that wait.
type outbox struct {
	mu     sync.Mutex
	filled *sync.Cond
	queue  []*frame
	state  outboxState
	failed chan struct{} // closed when a write failed
}

type outboxState int

const (
	outboxOpen      outboxState = iota
	outboxFinishing             // write what is there, then close
	outboxClosed                // write nothing more
)

type frame struct {
	data  []byte
	taken bool // handed to the pipe, at least in part
}

func newOutbox() *outbox {
	o := &outbox{failed: make(chan struct{})}
	o.filled = sync.NewCond(&o.mu)
	return o
}

// add queues a frame; false if nothing is taken any more.
func (o *outbox) add(f *frame) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.state != outboxOpen {
		return false
	}
	o.queue = append(o.queue, f)
	o.filled.Signal()
	return true
}

// addNote is add, unless too many frames wait already.
func (o *outbox) addNote(f *frame) bool {
	o.mu.Lock()
	isFull := len(o.queue) >= notesWaiting
	o.mu.Unlock()
	return !isFull && o.add(f)
}

// withdraw takes a frame back; false if it was handed to the pipe.
func (o *outbox) withdraw(f *frame) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if f.taken {
		return false
	}
	if i := slices.Index(o.queue, f); i >= 0 {
		o.queue = slices.Delete(o.queue, i, i+1)
	}
	return true
}

// finish lets the writer write what is queued and close the pipe.
func (o *outbox) finish() { o.leave(outboxFinishing) }

// abort throws away what is queued.
func (o *outbox) abort() { o.leave(outboxClosed) }

func (o *outbox) leave(state outboxState) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.state = max(o.state, state)
	o.filled.Signal()
}

func (o *outbox) isOpen() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.state == outboxOpen
}

// run is the writer goroutine: the only one that writes to pipe.
func (o *outbox) run(pipe io.WriteCloser) {
	defer pipe.Close()
	for {
		data := o.take()
		if data == nil {
			return
		}
		if _, err := pipe.Write(data); err != nil {
			o.abort()
			close(o.failed)
			return
		}
	}
}

// take waits for frames and returns about writeSize bytes of them; nil at the end.
func (o *outbox) take() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.queue) == 0 && o.state == outboxOpen {
		o.filled.Wait()
	}
	if o.state == outboxClosed {
		return nil
	}
	var data []byte
	taken := 0
	for _, f := range o.queue {
		if taken > 0 && len(data)+len(f.data) > writeSize {
			break
		}
		data = append(data, f.data...)
		f.taken, f.data = true, nil
		taken++
	}
	o.queue = slices.Delete(o.queue, 0, taken)
	return data
}
