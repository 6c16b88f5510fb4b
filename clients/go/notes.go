package reportbridge

import (
	"sync"
	"time"
)

const (
	// notesTogether is how long notes wait for others, after one that went at once.
	notesTogether = time.Second

	// maxNoted is the largest count that the bridge takes in one note.
	maxNoted = 1_000_000
)

// notes puts those of a second together. The first goes at once.
type notes struct {
	send func(TaskNote)

	mu      sync.Mutex
	waiting []TaskNote // of each account and type one whose cost is known, and one whose cost is not
	isTimed bool
}

// add sends a note, or adds it to one that waits for the end of the second.
func (n *notes) add(note TaskNote) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.merge(note) {
		n.waiting = append(n.waiting, note)
	}
	if !n.isTimed {
		n.beat()
	}
}

func (n *notes) merge(note TaskNote) bool {
	for i := range n.waiting {
		other := &n.waiting[i]
		count := max(other.Count, 1) + max(note.Count, 1)
		if other.TaskType == note.TaskType && other.ClientKey == note.ClientKey &&
			(other.Cost == 0) == (note.Cost == 0) && count <= maxNoted {
			other.Count, other.Cost = count, other.Cost+note.Cost
			return true
		}
	}
	return false
}

// flush sends what waits, so that the bridge has it before what is sent next.
func (n *notes) flush() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sendAll()
}

func (n *notes) sendAll() {
	for _, note := range n.waiting {
		n.send(note)
	}
	n.waiting = nil
}

// beat sends what waits, and looks again a second later if there was something.
func (n *notes) beat() {
	n.isTimed = len(n.waiting) > 0
	if n.isTimed {
		n.sendAll()
		time.AfterFunc(notesTogether, func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.beat()
		})
	}
}
