//go:build unix

package reportbridge

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// Pauses and advice are told once, from answers, errors and the status.
func TestPausesAndAdviceAreTold(t *testing.T) {
	told := make(chan string, 100)
	b, wire, lines := startRelay(t, func(o *Options) {
		o.OnPause = func(p Pause) { told <- string(p.Scope) }
		o.OnAdvice = func(w Warning) { told <- string(w.Kind) }
	})
	const (
		pause  = `{"scope":"%s","cause":"no_such_captcha","state":"open","openedAt":"2026-01-02T03:04:05Z","endsAt":null,"manual":false}`
		advice = `{"kind":"%s","message":"80 tasks in 24 h."}`
		owned  = `{"kind":"%s","account":"0123abcd","message":"79 tasks in 24 h."}`
	)
	warned := strings.TrimSuffix(acceptedAnswer, "}") + `,"warnings":[{"kind":"unknown_task_type","message":"m"},` + fmt.Sprintf(advice, "few_tasks") + `]}`
	paused := `"error":{"code":-32021,"message":"m","data":{"kind":"sending_paused","outcome":"not_sent","retryable":false,"pause":` + fmt.Sprintf(pause, "quality") + `}}`
	status := `"result":{"since":"2026-01-02T03:04:05Z","pauses":[` + fmt.Sprintf(pause, "key") + `],"advice":[` + fmt.Sprintf(owned, "few_tasks") + `,` + fmt.Sprintf(owned, "rate_high") + `]}`
	for _, answer := range []string{strings.ReplaceAll(warned, "%", "%%"), paused, paused, status, status} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			if answer == status {
				_, _ = b.Status(soon(t, 30*time.Second))
				return
			}
			_, _ = b.ReportIncorrectRecaptcha(soon(t, 30*time.Second), ReportParams{TaskID: 5})
		}()
		answerNext(t, wire, lines, answer)
		<-done
	}
	closeNow(b)
	var got []string
	for len(told) > 0 {
		got = append(got, <-told)
	}
	if want := []string{"few_tasks", "quality", "key", "rate_high"}; !slices.Equal(got, want) {
		t.Errorf("told %v, want %v", got, want)
	}
}

// Advice of an account is told once an hour, by a warning or by a status, and never instead of another account's.
func TestAdviceIsToldOnceAnHour(t *testing.T) {
	const warning, keyA, keyB = "warning", "key of a", "key of b"
	for name, steps := range map[string][]struct{ key, accounts, want string }{
		"warning, then status": {{keyA, warning, "warning"}, {"", "a", ""}, {"", "a b", "b"}, {"", "a b", ""}},
		"status, then warning": {{"", "a", "a"}, {keyA, warning, "warning"}, {"", "a", ""}},
		// Whose warning it was is open, so rather twice than not at all.
		"two accounts":      {{keyA, warning, "warning"}, {"", "a b", "a b"}, {keyB, warning, "warning"}, {"", "a b", ""}},
		"two keys":          {{keyA, warning, "warning"}, {keyB, warning, "warning"}, {"", "a", "a"}, {"", "a b", "b"}},
		"the other's":       {{keyA, warning, "warning"}, {"", "a", ""}, {keyB, warning, "warning"}, {"", "a b", ""}},
		"the default's":     {{"", warning, "warning"}, {"", "a", ""}, {keyB, warning, "warning"}},
		"an hour later":     {{keyA, warning, "warning"}, {"", "a", ""}, {"", "later", ""}, {"", "a", "a"}, {keyA, warning, ""}, {"", "later", ""}, {keyA, warning, "warning"}, {"", "a", ""}},
		"a bridge restarts": {{keyA, warning, "warning"}, {keyA, warning, ""}},
	} {
		var got []string
		w := watch{onAdvice: func(one Warning) { got = append(got, one.Message) }}
		for i, step := range steps {
			got = nil
			body := `{"warnings":[{"kind":"rate_high","message":"warning"}]}`
			if step.accounts == "later" {
				for told, at := range w.adviceAt {
					w.adviceAt[told] = at.Add(-adviceAgain)
				}
				continue
			}
			if step.accounts != warning {
				var advice []string
				for _, account := range strings.Fields(step.accounts) {
					advice = append(advice, fmt.Sprintf(`{"kind":"rate_high","account":%q,"message":%[1]q}`, account))
				}
				body = `{"advice":[` + strings.Join(advice, ",") + `]}`
			}
			for _, tell := range w.look([]byte(body), step.key) {
				tell()
			}
			if told := strings.Join(got, " "); told != step.want {
				t.Errorf("%s, step %d: told %q, want %q", name, i, told, step.want)
			}
		}
	}
}
