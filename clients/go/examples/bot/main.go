// Command bot shows a program that solves captchas and reports the wrong answers, and loses no report
// although its bridge is killed in the middle.
//
// It handles 200 simulated tasks against the simulator of report-bridge, which runs as a process of its
// own, as the real upstream would. What makes it safe is three lines: a ledger in a file, a restart policy,
// and asking again after a *DownError. Exit code 1 if a report was lost or sent more than twice.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	reportbridge "anticaptcha-report-bridge/reportbridge"
)

const (
	tasks     = 200
	workers   = 16
	killAfter = 30                                 // reports
	key       = "0123456789abcdef0123456789abcdef" // any key will do for the simulator
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	isWhole, err := run(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "bot:", err)
	}
	if err != nil || !isWhole {
		os.Exit(1)
	}
}

// bot counts what happens to its reports.
type bot struct {
	bridge                               *reportbridge.Bridge
	reported, asked, unanswered, trouble atomic.Int64
}

func run(ctx context.Context) (bool, error) {
	dir, err := os.MkdirTemp("", "bot")
	if err != nil {
		return false, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	upstream, stop, err := startUpstream(ctx, dir)
	if err != nil {
		return false, err
	}
	defer stop()

	bridge, err := reportbridge.Start(ctx, reportbridge.Options{
		URL:       upstream,
		ClientKey: key,
		Ledger:    filepath.Join(dir, "ledger.sqlite3"),
		Restart:   &reportbridge.RestartPolicy{},
		OnDown:    func(err *reportbridge.DownError) { fmt.Println("!", err.Reason, "- signal:", err.Signal) },
	})
	if err != nil {
		return false, err
	}
	b := &bot{bridge: bridge}
	wrong := b.work(ctx)
	closeErr := bridge.Close(ctx)

	taken, tooOften, err := countDeliveries(ctx, upstream, wrong)
	if err != nil {
		return false, err
	}
	fmt.Printf("%d tasks, %d wrong answers, %d reports accepted, %d taken by the upstream, %d sent more than twice\n",
		tasks, len(wrong), b.reported.Load(), taken, tooOften)
	fmt.Printf("%d calls, %d of them unanswered and repeated, %d restarts\n",
		b.asked.Load(), b.unanswered.Load(), bridge.Stats().Restarts)
	isWhole := taken == len(wrong) && tooOften == 0 && b.trouble.Load() == 0 && bridge.Stats().Restarts > 0
	return isWhole, closeErr
}

// work solves all tasks with a few workers, reports the wrong ones, and returns their ids.
func (b *bot) work(ctx context.Context) []int64 {
	queue := make(chan int64)
	var all sync.WaitGroup
	for range workers {
		all.Add(1)
		go func() {
			defer all.Done()
			for taskID := range queue {
				b.report(ctx, taskID, time.Now())
			}
		}()
	}
	var wrong []int64
	for taskID := int64(1); taskID <= tasks; taskID++ {
		if taskID%3 == 0 {
			continue // the site took this answer
		}
		wrong = append(wrong, taskID)
		queue <- taskID
		if len(wrong) == killAfter {
			b.killBridge(ctx)
		}
	}
	close(queue)
	all.Wait()
	return wrong
}

// report asks until there is an answer. Asking again is safe because the ledger knows what became of the
// report; the bridge itself ends it with the task's 60 seconds.
func (b *bot) report(ctx context.Context, taskID int64, completedAt time.Time) {
	params := reportbridge.ReportParams{TaskID: taskID, CompletedAt: reportbridge.UnixSeconds(completedAt)}
	for {
		b.asked.Add(1)
		_, err := b.bridge.ReportIncorrectRecaptcha(ctx, params)
		var down *reportbridge.DownError
		var refused *reportbridge.ReportError
		switch {
		case err == nil:
			b.reported.Add(1)
			return
		case errors.As(err, &down) && ctx.Err() == nil:
			b.unanswered.Add(1)
			time.Sleep(10 * time.Millisecond)
		case errors.As(err, &refused) && refused.Retryable && ctx.Err() == nil:
			time.Sleep(100 * time.Millisecond)
		case errors.As(err, &refused) && refused.Outcome == reportbridge.OutcomeUnknown:
			// Sent, and the bridge died before the verdict: the second reading was "no such task". It was
			// most likely taken, and nothing may be repeated; the upstream's own count is checked at the end.
			return
		default:
			b.trouble.Add(1)
			fmt.Println("!", err)
			return
		}
	}
}

// killBridge is the crash.
func (b *bot) killBridge(ctx context.Context) {
	info, err := b.bridge.Info(ctx)
	if err != nil {
		return
	}
	if process, err := os.FindProcess(int(info.PID)); err == nil {
		_ = process.Kill()
	}
}

// startUpstream runs the simulator; each report takes it 20 ms.
func startUpstream(ctx context.Context, dir string) (url string, stop func(), err error) {
	command, err := reportbridge.FindCommand("")
	if err != nil {
		return "", nil, err
	}
	ready := filepath.Join(dir, "ready")
	simulator := exec.Command(command, "simulate", "--latency", "0.02", "--ready-file", ready)
	if err := simulator.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = simulator.Process.Kill()
		_ = simulator.Wait()
	}
	for ctx.Err() == nil {
		if text, err := os.ReadFile(ready); err == nil {
			return strings.TrimSpace(string(text)), stop, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	stop()
	return "", nil, ctx.Err()
}

// countDeliveries asks the simulator which of the tasks were reported, and which were sent more often
// than the bridge ever does: once, and once more if the first attempt stayed without a verdict.
func countDeliveries(ctx context.Context, upstream string, wrong []int64) (taken, tooOften int, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, upstream+"/_control/deliveries", nil)
	if err != nil {
		return 0, 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = response.Body.Close() }()
	var answer struct {
		Deliveries []struct {
			TaskID    int64 `json:"taskId"`
			Delivered int   `json:"delivered"`
			Taken     int   `json:"taken"`
		} `json:"deliveries"`
	}
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		return 0, 0, err
	}
	isWrong := map[int64]bool{}
	for _, taskID := range wrong {
		isWrong[taskID] = true
	}
	for _, one := range answer.Deliveries {
		if isWrong[one.TaskID] && one.Taken > 0 {
			taken++
		}
		if one.Delivered > 2 {
			tooOften++
		}
	}
	return taken, tooOften, nil
}
