package reportbridge

import (
	"encoding/json"
	"strings"
	"sync"
	"time"
)

// The kinds of warnings that are advice: why reports may be worth nothing.
var adviceKinds = map[WarningKind]bool{
	"few_tasks": true, "rate_jump": true, "rate_high": true,
	"many_refused": true, "often_late": true, "tasks_unknown": true,
}

// The bridge puts the same advice into answers once an hour, and what its status repeats is held to that too. A minute
// less, since an answer may take longer to arrive than the one an hour later.
const adviceAgain = 59 * time.Minute

const pausesKept = 1000

// watch finds pauses and advice in what the bridge answers, and tells each once.
type watch struct {
	onPause  func(Pause)
	onAdvice func(Warning)
	mu       sync.Mutex
	pauses   map[string]struct{}
	adviceAt map[adviceOf]time.Time
	same     map[string]string // the key of an account, and the account of a key, as far as known
}

// adviceOf is advice for an account, which a status names, or for the key of a call: a warning has no account.
type adviceOf struct {
	kind  WarningKind
	whose string
}

type foundAdvice struct {
	Warning
	Account string `json:"account"`
}

// look takes a result or the data of an error, and the key of the call, and returns what to tell.
func (w *watch) look(answer json.RawMessage, key string) (told []func()) {
	if w.onPause == nil && w.onAdvice == nil {
		return nil
	}
	var found struct {
		Pause    *Pause        `json:"pause"`
		Pauses   []Pause       `json:"pauses"`
		Warnings []foundAdvice `json:"warnings"`
		Advice   []foundAdvice `json:"advice"`
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
	w.match(found.Advice)
	for i := range found.Warnings {
		found.Warnings[i].Account = "key " + key
	}
	for _, one := range append(found.Warnings, found.Advice...) {
		isKnown := w.isRecent(one.Kind, one.Account) || w.isRecent(one.Kind, w.same[one.Account])
		if !adviceKinds[one.Kind] || w.onAdvice == nil || isKnown {
			continue
		}
		if w.adviceAt == nil {
			w.adviceAt = make(map[adviceOf]time.Time)
		}
		w.adviceAt[adviceOf{one.Kind, one.Account}] = time.Now()
		told = append(told, func() { w.onAdvice(one.Warning) })
	}
	return told
}

// isRecent tells whether the advice was told within the hour.
func (w *watch) isRecent(kind WarningKind, whose string) bool {
	return time.Since(w.adviceAt[adviceOf{kind, whose}]) < adviceAgain
}

// match finds whose a key is: if one alone was warned of something, and a status has one account alone with it. With
// more of either that stays open, and advice is told for both: rather twice than not at all.
func (w *watch) match(advice []foundAdvice) {
	for _, one := range advice {
		var keys, accounts []string
		for told := range w.adviceAt {
			if told.kind == one.Kind && strings.HasPrefix(told.whose, "key ") && w.same[told.whose] == "" && w.isRecent(told.kind, told.whose) {
				keys = append(keys, told.whose)
			}
		}
		for _, other := range advice {
			if other.Kind == one.Kind && w.same[other.Account] == "" {
				accounts = append(accounts, other.Account)
			}
		}
		if len(keys) == 1 && len(accounts) == 1 {
			if w.same == nil {
				w.same = make(map[string]string)
			}
			w.same[keys[0]], w.same[accounts[0]] = accounts[0], keys[0]
		}
	}
}
