//go:build unix

package reportbridge

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The ids of the simulator with a fixed effect (docs/simulator.md).
const (
	magicNoSuchTask = 9_000_000_000_003_007
	magicLate       = 9_000_000_000_003_001
	magicSlow       = 9_000_000_000_003_115 // 5 s
)

const exampleKey = "0123456789abcdef0123456789abcdef"

// startReal starts the bridge itself; without one the test fails.
func startReal(t *testing.T, options Options) *Bridge {
	t.Helper()
	checkLeaks(t)
	b, err := Start(soon(t, time.Minute), options)
	if err != nil {
		t.Fatalf("these tests need the command report-bridge: %v", err)
	}
	t.Cleanup(func() { closeNow(b) })
	return b
}

// Each method of the client does what its name says.
func TestEveryMethod(t *testing.T) {
	b := startReal(t, Options{Sandbox: true})
	ctx := soon(t, time.Minute)
	info, err := b.Info(ctx)
	if err != nil || !info.Sandbox || info.Protocol != protocolVersion || info.Framing != FramingLine {
		t.Fatalf("info: %+v, %v", info, err)
	}
	type reporter = func(context.Context, ReportParams) (*ReportResult, error)
	for i, report := range []reporter{
		b.ReportIncorrectImageCaptcha, b.ReportIncorrectRecaptcha, b.ReportCorrectRecaptcha, b.ReportIncorrectHcaptcha,
	} {
		taskID := int64(i) + 1
		result, err := report(ctx, ReportParams{TaskID: taskID, CompletedAt: UnixSeconds(time.Now())})
		if err != nil || result.TaskID != taskID || result.Outcome != string(OutcomeAccepted) || !result.Sandbox {
			t.Fatalf("report %d: %+v, %v", i, result, err)
		}
	}
	record, err := b.GetReport(ctx, GetReportParams{TaskID: 2})
	if err != nil || record.Method != ReportMethodReportIncorrectRecaptcha || *record.Outcome != OutcomeAccepted {
		t.Errorf("getReport: %+v, %v", record, err)
	}
	var wrong *CallError
	if _, err = b.GetReport(ctx, GetReportParams{TaskID: 99}); !errors.As(err, &wrong) || wrong.Code != CodeReportNotFound {
		t.Errorf("getReport of nothing: %v", err)
	}
	page, err := b.ListReports(ctx, ListReportsParams{Limit: 3})
	if err != nil || len(page.Reports) != 3 || page.NextCursor == nil {
		t.Fatalf("listReports: %+v, %v", page, err)
	}
	page, err = b.ListReports(ctx, ListReportsParams{Limit: 3, Cursor: *page.NextCursor})
	if err != nil || len(page.Reports) != 1 || page.NextCursor != nil {
		t.Errorf("listReports, second page: %+v, %v", page, err)
	}
	if status, err := b.Status(ctx); err != nil || status.Outcomes.Accepted != 4 {
		t.Errorf("status: %+v, %v", status, err)
	}
	if resumed, err := b.Resume(ctx, ResumeParams{}); err != nil || len(resumed.Resumed) != 0 {
		t.Errorf("resume: %+v, %v", resumed, err)
	}
	if document, err := b.Discover(ctx); err != nil || document["openrpc"] == nil {
		t.Errorf("discover: %v", err)
	}
	if err := b.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// A sandbox on a ledger that was named knows what an earlier one reported.
func TestLedgerOfTheSandbox(t *testing.T) {
	options := Options{Sandbox: true, Ledger: filepath.Join(t.TempDir(), "ledger.sqlite3")}
	for _, isKnown := range []bool{false, true} {
		b := startReal(t, options)
		result, err := b.ReportIncorrectRecaptcha(soon(t, time.Minute), ReportParams{TaskID: 4711})
		if err != nil || result.Replayed != isKnown || !result.Durable {
			t.Errorf("known: %v: %+v, %v", isKnown, result, err)
		}
		if err := b.Close(soon(t, time.Minute)); err != nil {
			t.Error(err)
		}
	}
}

// A refusal is a *ReportError with everything that the bridge knows, wrong parameters are a *CallError.
func TestErrorsOfTheBridge(t *testing.T) {
	b := startReal(t, Options{Sandbox: true})
	ctx := soon(t, time.Minute)
	_, err := b.ReportIncorrectRecaptcha(ctx, ReportParams{TaskID: magicNoSuchTask})
	var refused *ReportError
	if !errors.As(err, &refused) {
		t.Fatalf("got %v", err)
	}
	if refused.Code != CodeNoSuchCaptcha || refused.Kind != KindNoSuchCaptcha || refused.Outcome != OutcomeRefused ||
		refused.Retryable || len(refused.Hints) == 0 || refused.TaskID != magicNoSuchTask || refused.Data.ErrorID != 16 {
		t.Errorf("got %+v", refused)
	}
	old := float64(time.Now().Add(-2 * time.Minute).Unix())
	_, err = b.ReportIncorrectRecaptcha(ctx, ReportParams{TaskID: magicLate, CompletedAt: &old})
	if !errors.As(err, &refused) || refused.Code != CodeWindowClosed || refused.Outcome != OutcomeNotSent || refused.Data.AgeSeconds == nil {
		t.Errorf("got %v", err)
	}
	_, err = b.ReportIncorrectRecaptcha(ctx, ReportParams{TaskID: 1, LanguagePool: "xx"})
	var wrong *CallError
	if !errors.As(err, &wrong) || wrong.Code != CodeInvalidParams || *wrong.Data.Pointer != "/languagePool" {
		t.Errorf("got %v", err)
	}
}

// Of 2,000 calls at once, many of them cancelled at random moments, each gets its own answer or its own error.
func TestManyCallsAtOnce(t *testing.T) {
	b := startReal(t, Options{Sandbox: true})
	const calls = 2000
	random := rand.New(rand.NewSource(1)) // repeatable on purpose
	var all sync.WaitGroup
	failures := make(chan error, calls)
	for i := range calls {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		isCancelled := random.Intn(4) == 0
		if isCancelled {
			time.AfterFunc(time.Duration(random.Intn(3000))*time.Millisecond, cancel)
		}
		all.Add(1)
		go func() {
			defer all.Done()
			defer cancel()
			taskID := int64(i) + 1
			result, err := b.ReportIncorrectRecaptcha(ctx, ReportParams{TaskID: taskID})
			var down *DownError
			switch {
			case err == nil && result.TaskID != taskID:
				failures <- fmt.Errorf("task %d got the answer of task %d", taskID, result.TaskID)
			case err == nil:
			case !isCancelled:
				failures <- err
			case !errors.As(err, &down) || !errors.Is(err, context.Canceled) || down.TaskID != taskID:
				failures <- fmt.Errorf("task %d was cancelled: %w", taskID, err)
			}
		}()
	}
	all.Wait()
	close(failures)
	for err := range failures {
		t.Error(err)
	}
	if err := b.Close(soon(t, time.Minute)); err != nil {
		t.Error(err)
	}
	if stats := b.Stats(); stats.ProtocolErrors != 0 {
		t.Errorf("%+v", stats)
	}
}

// After a kill in the middle of a report, the same call at the next bridge gets the one true answer.
func TestKillInTheMiddleOfAReport(t *testing.T) {
	simulator := startSimulator(t)
	b := startReal(t, Options{
		URL: simulator, ClientKey: exampleKey, Ledger: filepath.Join(t.TempDir(), "ledger.sqlite3"),
		Restart: &RestartPolicy{},
	})
	ctx := soon(t, 2*time.Minute)
	if _, err := b.ReportIncorrectRecaptcha(ctx, ReportParams{TaskID: 1}); err != nil {
		t.Fatal(err)
	}
	failed := make(chan error, 1)
	go func() {
		_, err := b.ReportIncorrectRecaptcha(ctx, ReportParams{TaskID: magicSlow})
		failed <- err
	}()
	info, err := b.Info(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for status := new(BridgeStatus); status.InFlight == 0; time.Sleep(10 * time.Millisecond) {
		if status, err = b.Status(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Kill(int(info.PID), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var down *DownError
	if err := <-failed; !errors.As(err, &down) || down.Outcome != OutcomeUnknown || down.Signal != syscall.SIGKILL {
		t.Fatalf("got %v", err)
	}
	result, err := b.ReportIncorrectRecaptcha(ctx, ReportParams{TaskID: 1})
	if err != nil || !result.Replayed {
		t.Errorf("a report of before: %+v, %v", result, err)
	}
	// The killed attempt was delivered, so the one that recovery makes is refused as a second report.
	var refused *ReportError
	_, err = b.ReportIncorrectRecaptcha(ctx, ReportParams{TaskID: magicSlow})
	if err != nil && (!errors.As(err, &refused) || refused.Outcome != OutcomeUnknown) {
		t.Errorf("the report that was under way: %v", err)
	}
	if err := b.Close(soon(t, time.Minute)); err != nil {
		t.Error(err)
	}
}

// A deadline in the middle of a report gives the call up, not the report.
func TestDeadlineInTheMiddleOfAReport(t *testing.T) {
	b := startReal(t, Options{Sandbox: true})
	_, err := b.ReportIncorrectRecaptcha(soon(t, time.Second), ReportParams{TaskID: magicSlow})
	var down *DownError
	if !errors.As(err, &down) || down.Outcome != OutcomeUnknown || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	result, err := b.ReportIncorrectRecaptcha(soon(t, time.Minute), ReportParams{TaskID: magicSlow})
	if err != nil || !result.Replayed {
		t.Errorf("asked again: %+v, %v", result, err)
	}
	if err := b.Close(soon(t, time.Minute)); err != nil {
		t.Error(err)
	}
	if stats := b.Stats(); stats.LateAnswers != 1 || stats.ProtocolErrors != 0 {
		t.Errorf("%+v", stats)
	}
}

// startSimulator serves the upstream's API in a process of its own, which outlives bridges.
func startSimulator(t *testing.T) string {
	t.Helper()
	path, err := FindCommand("")
	if err != nil {
		t.Fatal(err)
	}
	ready := filepath.Join(t.TempDir(), "ready")
	simulator := exec.Command(path, "simulate", "--ready-file", ready)
	if err := simulator.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = simulator.Process.Kill()
		_ = simulator.Wait()
	})
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		if url, err := os.ReadFile(ready); err == nil {
			return strings.TrimSpace(string(url))
		}
	}
	t.Fatal("the simulator did not start")
	return ""
}
