package reportbridge

import (
	"encoding/json"
	"sync"
	"time"
)

// The kinds of warnings that are advice: why reports may be worth nothing.
var adviceKinds = map[WarningKind]bool{
	"few_tasks": true, "rate_jump": true, "rate_high": true,
	"many_refused": true, "often_late": true, "tasks_unknown": true,
}

// The bridge puts the same advice into answers once an hour; what its status repeats is held to that too.
const adviceAgain = time.Hour

const pausesKept = 1000

// watch finds pauses and advice in what the bridge answers, and tells each once.
type watch struct {
	onPause  func(Pause)
	onAdvice func(Warning)
	mu       sync.Mutex
	pauses   map[string]struct{}
	adviceAt map[string]time.Time
}

// look takes a result or the data of an error, and returns what to tell.
func (w *watch) look(answer json.RawMessage) (told []func()) {
	if w.onPause == nil && w.onAdvice == nil {
		return nil
	}
	type advice struct {
		Warning
		Account string `json:"account"`
	}
	var found struct {
		Pause    *Pause   `json:"pause"`
		Pauses   []Pause  `json:"pauses"`
		Warnings []advice `json:"warnings"`
		Advice   []advice `json:"advice"`
	}
	if json.Unmarshal(answer, &found) != nil {
		return nil
	}
	if found.Pause != nil {
		found.Pauses = append(found.Pauses, *found.Pause)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, pause := range found.Pauses {
		name := string(pause.Scope) + " " + pause.Cause + " " + pause.OpenedAt.String()
		if _, isKnown := w.pauses[name]; isKnown || w.onPause == nil {
			continue
		}
		if w.pauses == nil || len(w.pauses) >= pausesKept {
			w.pauses = make(map[string]struct{})
		}
		w.pauses[name] = struct{}{}
		told = append(told, func() { w.onPause(pause) })
	}
	for i, one := range append(found.Warnings, found.Advice...) {
		isNews := i < len(found.Warnings)
		name := string(one.Kind) + " " + one.Account
		last, isKnown := w.adviceAt[name]
		if !adviceKinds[one.Kind] || w.onAdvice == nil || !isNews && isKnown && time.Since(last) < adviceAgain {
			continue
		}
		if w.adviceAt == nil {
			w.adviceAt = make(map[string]time.Time)
		}
		w.adviceAt[name] = time.Now()
		told = append(told, func() { w.onAdvice(one.Warning) })
	}
	return told
}
