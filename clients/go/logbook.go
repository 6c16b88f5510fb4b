package reportbridge

import (
	"strings"
	"sync"
	"sync/atomic"
)

// Stats counts what a bridge saw that no call was told.
type Stats struct {
	ProtocolErrors int64 // lines of standard output that were no answer to a call
	LateAnswers    int64 // answers to calls that had given up
	Restarts       int64 // bridges started after the first
	DroppedNotices int64 // callbacks not made because they were too slow
}

// keysKept bounds the keys that are remembered to be masked.
const keysKept = 256

// logbook counts, masks keys, numbers calls, and makes the callbacks on one goroutine of its own.
type logbook struct {
	options    Options // callbacks only
	watch      watch
	lastID     atomic.Int64
	counts     struct{ protocol, late, restarts, dropped atomic.Int64 }
	mu         sync.Mutex
	keys       map[string]struct{}
	notices    chan func()
	isClosed   bool
	noticesEnd chan struct{}
}

func newLogbook(o Options) *logbook {
	l := &logbook{
		options: Options{OnStderr: o.OnStderr, OnProtocolError: o.OnProtocolError, OnDown: o.OnDown},
		watch:   watch{onPause: o.OnPause, onAdvice: o.OnAdvice},
		keys:    make(map[string]struct{}),
		notices: make(chan func(), noticesWaiting), noticesEnd: make(chan struct{}),
	}
	l.learn(o.ClientKey)
	go func() {
		defer close(l.noticesEnd)
		for notice := range l.notices {
			notice()
		}
	}()
	return l
}

// close ends the callbacks after those that are due.
func (l *logbook) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.isClosed {
		l.isClosed = true
		close(l.notices)
	}
}

func (l *logbook) notify(notice func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isClosed {
		return
	}
	select {
	case l.notices <- notice:
	default:
		l.counts.dropped.Add(1)
	}
}

// learn remembers a key, so that it is masked in whatever the child writes.
func (l *logbook) learn(key string) {
	if len(key) < 8 {
		return // too short to be a key, and masking it would garble everything
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.keys) < keysKept {
		l.keys[key] = struct{}{}
	}
}

func (l *logbook) scrub(text string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key := range l.keys {
		text = strings.ReplaceAll(text, key, masked)
	}
	return strings.ToValidUTF8(text, "\uFFFD")
}

func (l *logbook) nextID() int64 { return l.lastID.Add(1) }

func (l *logbook) wasIssued(id int64) bool { return id >= firstID && id <= l.lastID.Load() }

func (l *logbook) late() { l.counts.late.Add(1) }

func (l *logbook) stderr(line string) {
	if tell := l.options.OnStderr; tell != nil {
		l.notify(func() { tell(line) })
	}
}

func (l *logbook) down(err *DownError) {
	if tell := l.options.OnDown; tell != nil {
		l.notify(func() { tell(err) })
	}
}

// answer tells the pauses and the advice of an answer to a call with the key.
func (l *logbook) answer(data []byte, key string) {
	for _, tell := range l.watch.look(data, key) {
		l.notify(tell)
	}
}

func (l *logbook) protocol(kind string, line []byte, size int64) {
	l.counts.protocol.Add(1)
	tell := l.options.OnProtocolError
	if tell == nil {
		return
	}
	const excerpt, longestKey = 200, 128
	// Masked before it is cut: half a key would not be recognised.
	text := l.scrub(string(line[:min(len(line), excerpt+longestKey)]))
	text = strings.ToValidUTF8(text[:min(len(text), excerpt)], "")
	l.notify(func() { tell(ProtocolError{Kind: kind, Excerpt: text, Bytes: size}) })
}

func (l *logbook) stats() Stats {
	return Stats{
		ProtocolErrors: l.counts.protocol.Load(), LateAnswers: l.counts.late.Load(),
		Restarts: l.counts.restarts.Load(), DroppedNotices: l.counts.dropped.Load(),
	}
}
