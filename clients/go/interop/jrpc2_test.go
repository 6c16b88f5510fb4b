// Package interop holds the bridge against JSON-RPC clients by other people. Tests only.
package interop

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/creachadair/jrpc2"
	"github.com/creachadair/jrpc2/channel"
)

// The ids of the simulator with a fixed effect (docs/simulator.md).
const (
	magicNoSuchTask = 9_000_000_000_003_007
	magicSlow       = 9_000_000_000_003_115 // 5 s
)

var framings = map[string]channel.Framing{
	"Line":         channel.Line,
	"LSP":          channel.LSP,
	"Header":       channel.Header(""),
	"StrictHeader": channel.StrictHeader(""),
}

type params = map[string]any

type report struct {
	TaskID  int64  `json:"taskId"`
	Outcome string `json:"outcome"`
}

// connect starts a bridge in the sandbox and puts a jrpc2 client on its pipes; the end of the test asks
// for exit code 0 after the end of input.
func connect(t *testing.T, framing channel.Framing, options *jrpc2.ClientOptions, flags ...string) *jrpc2.Client {
	t.Helper()
	path := os.Getenv("REPORT_BRIDGE_BIN")
	if path == "" {
		path = "report-bridge"
	}
	bridge := exec.Command(path, append([]string{"--sandbox"}, flags...)...)
	bridge.Stderr = os.Stderr
	input, err := bridge.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := bridge.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := bridge.Start(); err != nil {
		t.Fatalf("these tests need the command report-bridge: %v", err)
	}
	client := jrpc2.NewClient(framing(output, input), options)
	t.Cleanup(func() {
		_ = client.Close()
		stuck := time.AfterFunc(time.Minute, func() { _ = bridge.Process.Kill() })
		defer stuck.Stop()
		if err := bridge.Wait(); err != nil {
			t.Errorf("the bridge ended: %v", err)
		}
	})
	return client
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func each(t *testing.T, test func(t *testing.T, framing channel.Framing)) {
	t.Helper()
	for name, framing := range framings {
		t.Run(name, func(t *testing.T) { test(t, framing) })
	}
}

// The four report methods are accepted over every framing that both sides know.
func TestReports(t *testing.T) {
	each(t, func(t *testing.T, framing channel.Framing) {
		client := connect(t, framing, nil)
		for i, method := range []string{
			"reportIncorrectImageCaptcha", "reportIncorrectRecaptcha", "reportCorrectRecaptcha", "reportIncorrectHcaptcha",
		} {
			var result report
			taskID := int64(i) + 1<<52
			if err := client.CallResult(soon(t), method, params{"taskId": taskID}, &result); err != nil {
				t.Fatal(err)
			}
			if result != (report{taskID, "accepted"}) {
				t.Errorf("%s: %+v", method, result)
			}
		}
	})
}

// An error keeps its code and its data.
func TestErrors(t *testing.T) {
	each(t, func(t *testing.T, framing channel.Framing) {
		client := connect(t, framing, nil)
		for method, one := range map[string]struct {
			taskID any
			code   jrpc2.Code
			kind   string
		}{
			"reportIncorrectRecaptcha":    {int64(magicNoSuchTask), 16, "no_such_captcha"},
			"reportIncorrectImageCaptcha": {"1", jrpc2.InvalidParams, "invalid_params"},
			"bridge.getReport":            {1, -32014, "report_not_found"},
			"noSuchMethod":                {1, jrpc2.MethodNotFound, "method_not_found"},
		} {
			var failure *jrpc2.Error
			_, err := client.Call(soon(t), method, params{"taskId": one.taskID})
			if !errors.As(err, &failure) || failure.Code != one.code {
				t.Fatalf("%s: %v", method, err)
			}
			var data struct {
				Kind string `json:"kind"`
			}
			if err := json.Unmarshal(failure.Data, &data); err != nil || data.Kind != one.kind {
				t.Errorf("%s: %s, %v", method, failure.Data, err)
			}
		}
	})
}

// The members of a batch each get their own answer; a notification in it gets none.
func TestBatch(t *testing.T) {
	each(t, func(t *testing.T, framing channel.Framing) {
		client := connect(t, framing, nil)
		answers, err := client.Batch(soon(t), []jrpc2.Spec{
			{Method: "reportIncorrectRecaptcha", Params: params{"taskId": 1}},
			{Method: "reportIncorrectRecaptcha", Params: params{"taskId": 2}, Notify: true},
			{Method: "reportIncorrectRecaptcha", Params: params{"taskId": magicNoSuchTask}},
			{Method: "bridge.info"},
		})
		if err != nil || len(answers) != 3 {
			t.Fatalf("%d answers, %v", len(answers), err)
		}
		var result report
		if err := answers[0].UnmarshalResult(&result); err != nil || result.TaskID != 1 {
			t.Errorf("first: %+v, %v", result, err)
		}
		if failure := answers[1].Error(); failure == nil || failure.Code != 16 {
			t.Errorf("second: %v", failure)
		}
		if failure := answers[2].Error(); failure != nil {
			t.Errorf("third: %v", failure)
		}
	})
}

// Calls from many goroutines each get their own answer.
func TestConcurrentCalls(t *testing.T) {
	each(t, func(t *testing.T, framing channel.Framing) {
		client := connect(t, framing, nil)
		ctx := soon(t)
		var all sync.WaitGroup
		for taskID := range int64(100) {
			all.Add(1)
			go func() {
				defer all.Done()
				var result report
				err := client.CallResult(ctx, "reportIncorrectRecaptcha", params{"taskId": taskID + 1}, &result)
				if err != nil || result.TaskID != taskID+1 {
					t.Errorf("task %d: %+v, %v", taskID+1, result, err)
				}
			}()
		}
		all.Wait()
	})
}

// A cancelled context, told to the bridge by the client's hook, keeps a report that has not begun from being sent.
func TestCancellation(t *testing.T) {
	each(t, func(t *testing.T, framing channel.Framing) {
		client := connect(t, framing, &jrpc2.ClientOptions{OnCancel: func(client *jrpc2.Client, answer *jrpc2.Response) {
			_ = client.Notify(context.Background(), "$/cancelRequest", params{"id": json.RawMessage(answer.ID())})
		}}, "--concurrency", "1")
		ctx := soon(t)
		slow := make(chan error, 1)
		go func() {
			_, err := client.Call(ctx, "reportIncorrectRecaptcha", params{"taskId": magicSlow})
			slow <- err
		}()
		for inFlight := 0; inFlight == 0; time.Sleep(10 * time.Millisecond) {
			var status struct {
				InFlight int `json:"inFlight"`
			}
			if err := client.CallResult(ctx, "bridge.status", nil, &status); err != nil {
				t.Fatal(err)
			}
			inFlight = status.InFlight
		}
		short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
		defer cancel()
		if _, err := client.Call(short, "reportIncorrectRecaptcha", params{"taskId": 7}); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}
		var record struct {
			Outcome *string `json:"outcome"`
		}
		for record.Outcome == nil {
			if err := client.CallResult(ctx, "bridge.getReport", params{"taskId": 7}, &record); err != nil {
				t.Fatal(err)
			}
		}
		if *record.Outcome != "not_sent" {
			t.Errorf("the outcome is %s", *record.Outcome)
		}
		if err := <-slow; err != nil {
			t.Error(err)
		}
	})
}
