//go:build unix

package reportbridge

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"
)

// answerNext reads a line, answers it with what is given for its id (%s), and returns it without its id.
func answerNext(t *testing.T, wire net.Conn, lines *bufio.Reader, answer string) string {
	t.Helper()
	line, err := lines.ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var r request
	if err := json.Unmarshal(line, &r); err != nil {
		t.Fatal(err)
	}
	if answer != "" {
		_, _ = fmt.Fprintf(wire, `{"jsonrpc":"2.0","id":%s,`+answer+"}\n", r.ID)
	}
	return strings.TrimSpace(strings.Replace(string(line), `"id":`+string(r.ID)+`,`, "", 1))
}

const acceptedAnswer = `"result":{"status":"success","taskId":5,"outcome":"accepted","attempts":1,"replayed":false,"durable":true,"elapsedMs":1}`

// A task picks its method, passes when it was solved, and is noted once.
func TestTaskReports(t *testing.T) {
	b, wire, lines := startRelay(t, nil)
	var solved SolvedTask
	body := `{"errorId":0,"status":"ready","solution":{},"cost":"0.00200","ip":"1.2.3.4","endTime":"1700000000","solveCount":"0"}`
	if err := json.Unmarshal([]byte(body), &solved); err != nil {
		t.Fatal(err)
	}
	solved.TaskID, solved.TaskType, solved.ClientKey = 5, "recaptchaV3TASK", canary
	task := b.Task(solved)
	want := `{"jsonrpc":"2.0","method":"bridge.noteTasks","params":{"taskType":"recaptchaV3TASK","cost":0.002,"clientKey":"` + canary + `"}}`
	if got := answerNext(t, wire, lines, ""); got != want {
		t.Errorf("got %s", got)
	}
	for method, report := range map[string]func(context.Context) (*ReportResult, error){
		MethodReportIncorrectRecaptcha: task.ReportWrong, MethodReportCorrectRecaptcha: task.ReportRight,
	} {
		done := make(chan error, 1)
		go func() { _, err := report(soon(t, 30*time.Second)); done <- err }()
		want := `{"jsonrpc":"2.0","method":"` + method + `","params":{"taskId":5,"clientKey":"` + canary + `","completedAt":1700000000,"taskType":"recaptchaV3TASK"}}`
		if got := answerNext(t, wire, lines, acceptedAnswer); got != want {
			t.Errorf("got %s", got)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if text := fmt.Sprintf("%+v %v", task, solved); strings.Contains(text, canary) || !strings.Contains(text, "EndTime:2023-11-14T22:13:20Z") {
		t.Errorf("it prints %s", text)
	}
}

// Each type of the table has the methods of the table, and a report without a method is refused here.
func TestTaskTypes(t *testing.T) {
	b := startFake(t, "good", nil)
	for name, want := range taskTypes {
		task := b.Task(SolvedTask{TaskID: 7, TaskType: name})
		for method, report := range map[string]func(context.Context) (*ReportResult, error){want.wrong: task.ReportWrong, want.right: task.ReportRight} {
			_, err := report(soon(t, 30*time.Second))
			var refused *ReportError
			isRefused := errors.As(err, &refused) && refused.Code == CodeWrongMethod && refused.Outcome == OutcomeNotSent && refused.TaskID == 7
			if isRefused != (method == "") || !isRefused && err != nil {
				t.Errorf("%s, %q: %v", name, method, err)
			}
		}
	}
	for _, one := range []struct{ name, want string }{
		{"ImageToTextTask", "reports of right answers about"}, {"TurnstileTask", "takes no reports about"}, {"NewTask", "does not know the task's type"},
	} {
		if _, err := b.Task(SolvedTask{TaskID: 7, TaskType: one.name}).ReportRight(context.Background()); err == nil || !strings.Contains(err.Error(), one.want) {
			t.Errorf("%s: %v", one.name, err)
		}
	}
}

// Numbers are taken as the upstream writes them, and nothing else is.
func TestSolvedTaskIsDecoded(t *testing.T) {
	var solved SolvedTask
	if err := json.Unmarshal([]byte(`{"taskId":"9007199254740991","endTime":1700000000.5,"cost":0.5,"taskType":"A","languagePool":"en"}`), &solved); err != nil {
		t.Fatal(err)
	}
	want := SolvedTask{TaskID: maxTaskID, TaskType: "A", EndTime: time.UnixMilli(1700000000500).UTC(), Cost: 0.5, LanguagePool: LanguagePoolEn}
	if solved != want {
		t.Errorf("got %v", solved)
	}
	if err := json.Unmarshal([]byte(`{"endTime":null}`), &solved); err != nil || solved != want {
		t.Errorf("null: %v, %v", solved, err)
	}
	for bad, name := range map[string]string{
		`{"taskId":"x"}`: "taskId", `{"taskId":1.5}`: "taskId", `{"taskId":1e400}`: "taskId", `{"taskId":"99999999999999999999"}`: "taskId",
		`{"endTime":"soon"}`: "endTime", `{"endTime":1e300}`: "endTime", `{"endTime":1700000000500}`: "endTime", `{"endTime":-1}`: "endTime", `{"endTime":"nan"}`: "endTime",
		`{"cost":{}}`: "cost", `{"cost":"inf"}`: "cost", `{"cost":-0.5}`: "cost", `[]`: "",
	} {
		if err := json.Unmarshal([]byte(bad), &solved); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", bad, err)
		}
		if solved != want {
			t.Fatalf("%s makes it %v", bad, solved)
		}
	}
}

// The blocks of the README that are no whole program are in an example, which is compiled and run.
func TestReadmeIsCompiled(t *testing.T) {
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	examples, err := os.ReadFile("example_test.go")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(page), "```go\n")[1:]
	for _, block := range blocks {
		block, _, _ = strings.Cut(block, "```")
		indented := "\t" + strings.ReplaceAll(strings.TrimSpace(block), "\n", "\n\t") + "\n"
		if !strings.Contains(block, "package main") && !strings.Contains(string(examples), indented) {
			t.Errorf("not in example_test.go:\n%s", block)
		}
	}
	if len(blocks) < 2 {
		t.Errorf("found %d blocks", len(blocks))
	}
}

// A note is a notification; with an answer it is a request; what cannot be is refused.
func TestNoteTasks(t *testing.T) {
	b, wire, lines := startRelay(t, nil)
	note := TaskNote{TaskType: "ImageToTextTask", Count: 80, Cost: 0.056}
	if err := b.NoteTasks(note); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	want := `{"jsonrpc":"2.0","method":"bridge.noteTasks","params":{"taskType":"ImageToTextTask","count":80,"cost":0.056}}`
	if got := answerNext(t, wire, lines, ""); got != want {
		t.Errorf("got %s", got)
	}
	for _, answer := range []string{`"result":{"noted":80}`, `"result":null`} {
		go func() { answered <- b.NoteTasksAnswered(soon(t, 30*time.Second), note) }()
		if got := answerNext(t, wire, lines, answer); got != want {
			t.Errorf("got %s", got)
		}
		if err := <-answered; err != nil {
			t.Error(err)
		}
	}
	var wrong *CallError
	for _, bad := range []TaskNote{{}, {TaskType: "A", Count: -1}, {TaskType: "A", Cost: -1}} {
		if err := b.NoteTasks(bad); !errors.As(err, &wrong) || wrong.Code != CodeInvalidParams {
			t.Errorf("%v: %v", bad, err)
		}
	}
	closeNow(b)
	var down *DownError
	if err := b.NoteTasks(note); !errors.As(err, &down) {
		t.Errorf("after Close: %v", err)
	}
}

// The notes of a second go together: one for each type, account and knowledge of the cost, before the next call.
func TestNotesGoTogether(t *testing.T) {
	b, wire, lines := startRelay(t, nil)
	for _, cost := range []float64{1, 0.25, 0.5, 0, 0} {
		if err := b.NoteTasks(TaskNote{TaskType: "A", Cost: cost}); err != nil {
			t.Fatal(err)
		}
	}
	for _, count := range []int64{3, 4, maxNoted} {
		if err := b.NoteTasks(TaskNote{TaskType: "A", Count: count, ClientKey: canary}); err != nil {
			t.Fatal(err)
		}
	}
	done := make(chan error, 1)
	go func() {
		_, err := b.ReportIncorrectRecaptcha(soon(t, 30*time.Second), ReportParams{TaskID: 5})
		done <- err
	}()
	for _, want := range []string{
		`{"taskType":"A","cost":1}`, `{"taskType":"A","count":2,"cost":0.75}`, `{"taskType":"A","count":2}`,
		`{"taskType":"A","count":7,"clientKey":"` + canary + `"}`, `{"taskType":"A","count":1000000,"clientKey":"` + canary + `"}`,
	} {
		if got := answerNext(t, wire, lines, ""); got != `{"jsonrpc":"2.0","method":"bridge.noteTasks","params":`+want+`}` {
			t.Errorf("got %s", got)
		}
	}
	_ = answerNext(t, wire, lines, acceptedAnswer)
	if err := <-done; err != nil {
		t.Error(err)
	}
	// One that waits for nothing but the second.
	for _, count := range []int64{8, 9} {
		if err := b.NoteTasks(TaskNote{TaskType: "B", Count: count}); err != nil {
			t.Fatal(err)
		}
	}
	if got := answerNext(t, wire, lines, ""); !strings.Contains(got, `"count":17`) {
		t.Errorf("got %s", got)
	}
}

// While the bridge does not read, notes keep no memory.
func TestNotesAreDroppedWhileNobodyReads(t *testing.T) {
	b := startFake(t, "deaf", nil)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range 500_000 {
		if err := b.NoteTasks(TaskNote{TaskType: "ImageToTextTask"}); err != nil {
			t.Fatal(err)
		}
		b.notes.flush() // as many calls would
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 16<<20 {
		t.Errorf("%d bytes", grown)
	}
}

// An error has the rule that was broken and the name that was meant.
func TestRuleAndSuggestion(t *testing.T) {
	b, wire, lines := startRelay(t, nil)
	for answer, want := range map[string][2]string{
		`"error":{"code":-32600,"message":"m","data":{"kind":"invalid_request","rule":"method"}}`:                  {"method", ""},
		`"error":{"code":-32601,"message":"m","data":{"kind":"method_not_found","suggestion":"bridge.getReport"}}`: {"", "bridge.getReport"},
	} {
		done := make(chan error, 1)
		go func() { _, err := b.Info(soon(t, 30*time.Second)); done <- err }()
		answerNext(t, wire, lines, answer)
		var wrong *CallError
		if err := <-done; !errors.As(err, &wrong) || wrong.Rule != want[0] || wrong.Suggestion != want[1] || !strings.Contains(err.Error(), want[1]) {
			t.Errorf("got %v", err)
		}
	}
}

// Every method of a nil Bridge returns an error instead of a panic.
func TestNilBridge(t *testing.T) {
	var b *Bridge
	ctx := context.Background()
	calls := map[string]func() error{
		"report":   func() error { _, err := b.ReportIncorrectImageCaptcha(ctx, ReportParams{TaskID: 1}); return err },
		"info":     func() error { _, err := b.Info(ctx); return err },
		"status":   func() error { _, err := b.Status(ctx); return err },
		"get":      func() error { _, err := b.GetReport(ctx, GetReportParams{TaskID: 1}); return err },
		"list":     func() error { _, err := b.ListReports(ctx, ListReportsParams{}); return err },
		"resume":   func() error { _, err := b.Resume(ctx, ResumeParams{}); return err },
		"discover": func() error { _, err := b.Discover(ctx); return err },
		"note":     func() error { return b.NoteTasks(TaskNote{TaskType: "A"}) },
		"answered": func() error { return b.NoteTasksAnswered(ctx, TaskNote{TaskType: "A"}) },
		"close":    func() error { return b.Close(ctx) },
		"task": func() error {
			_, err := b.Task(SolvedTask{TaskID: 1, TaskType: "ImageToTextTask"}).ReportWrong(ctx)
			return err
		},
	}
	for name, call := range calls {
		var down *DownError
		if err := call(); !errors.Is(err, errNil) || !errors.As(err, &down) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if text := fmt.Sprint(b, b.Stats()); text != "reportbridge.Bridge{nil} {0 0 0 0}" {
		t.Errorf("it prints %s", text)
	}
}

// Records and results print for people with every verb: no addresses, times as RFC 3339.
func TestRecordsPrintReadably(t *testing.T) {
	var record ReportRecord
	body := `{"taskId":5,"method":"reportIncorrectRecaptcha","account":"0123abcd","state":"done","outcome":"refused","code":16,"kind":"no_such_captcha","attempts":1,"recordedAt":"2026-01-02T03:04:05.678Z","finishedAt":"2026-01-02T03:04:06Z"}`
	if err := json.Unmarshal([]byte(body), &record); err != nil {
		t.Fatal(err)
	}
	if took := record.FinishedAt.Sub(record.RecordedAt); took != 322*time.Millisecond {
		t.Errorf("it took %v", took)
	}
	want := "ReportRecord{TaskID:5 Method:reportIncorrectRecaptcha Account:0123abcd State:done Outcome:refused Code:16 Kind:no_such_captcha Attempts:1 RecordedAt:2026-01-02T03:04:05.678Z FinishedAt:2026-01-02T03:04:06Z Sandbox:false}"
	page := ListReportsResult{Reports: []ReportRecord{record}}
	for got, want := range map[string]string{
		fmt.Sprintf("%+v", record): want, fmt.Sprintf("%v", &record): want, fmt.Sprintf("%#v %d", &record, record): want + " " + want,
		fmt.Sprintf("%v", &ReportResult{Status: "success", TaskID: 5}):   "ReportResult{Status:success TaskID:5 Attempts:0 Replayed:false Durable:false ElapsedMs:0 Sandbox:false}",
		fmt.Sprintf("%v", &ResumeResult{Resumed: []ActivePause{}}):       "ResumeResult{Sandbox:false}",
		fmt.Sprintf("%v", Warning{Kind: WarningKindFewTasks}):            "Warning{Kind:few_tasks}",
		fmt.Sprintf("%v %+v", (*ReportResult)(nil), (*BridgeInfo)(nil)):  "<nil> <nil>",
		fmt.Sprintf("%+v", page):                                         "ListReportsResult{Reports:[" + want + "] Sandbox:false}",
		fmt.Sprint(ReportParams{CompletedAt: new(float64)}):              "ReportParams{TaskID:0 CompletedAt:0}",
		fmt.Sprint(BridgeStatus{Codes: map[string]int64{"16": 2}}.Codes): "map[16:2]",
	} {
		if got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	if text := fmt.Sprintf("%+v", BridgeStatus{Pauses: []ActivePause{{Scope: PauseScopeKey}}}); strings.Contains(text, "0x") || !strings.Contains(text, "ActivePause{Scope:key") {
		t.Errorf("got %s", text)
	}
}

// While the bridge lives, an error has none of its lines about other tasks; at its start and death it has.
func TestStderrIsOfTheDead(t *testing.T) {
	b := startFake(t, "chatty", nil)
	var down *DownError
	_, err := b.ReportIncorrectRecaptcha(soon(t, 500*time.Millisecond), ReportParams{TaskID: 7})
	if !errors.As(err, &down) || len(down.Stderr) != 0 || strings.Contains(err.Error(), "another task") {
		t.Errorf("got %v", err)
	}
	self := fakeOptions(t, "mute")
	self.Env = append(self.Env, saysVariable+"=cannot find my way\n")
	_, err = start(soon(t, 500*time.Millisecond), self, quick)
	if !errors.As(err, &down) || !strings.Contains(err.Error(), "is it report-bridge?") || !strings.Contains(err.Error(), "cannot find my way") {
		t.Errorf("got %v", err)
	}
}
