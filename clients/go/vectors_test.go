//go:build unix

package reportbridge

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"reflect"
	"regexp"
	"testing"
	"time"
)

const vectorFile = "../../tests/vectors/transcripts/client-calls.json"

type step struct {
	Call      string          `json:"call"`
	ID        int64           `json:"id"`
	Params    json.RawMessage `json:"params"`
	Writes    *string         `json:"-->"`
	Reads     *string         `json:"<--"`
	Ends      int64           `json:"ends"`
	Value     json.RawMessage `json:"value"`
	Error     map[string]any  `json:"error"`
	Cancel    int64           `json:"cancel"`
	Cancelled bool            `json:"cancelled"`
	Down      bool            `json:"down"`
	Refused   string          `json:"refused"`
}

type ending struct {
	value any
	err   error
}

// Every transcript that the clients share comes out the same here.
func TestTranscripts(t *testing.T) {
	data, err := os.ReadFile(vectorFile)
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Transcripts []struct {
			Name  string `json:"name"`
			Steps []step `json:"steps"`
		} `json:"transcripts"`
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	if err := decoder.Decode(&file); err != nil || len(file.Transcripts) == 0 {
		t.Fatalf("%d transcripts, %v", len(file.Transcripts), err)
	}
	for _, transcript := range file.Transcripts {
		t.Run(transcript.Name, func(t *testing.T) { play(t, transcript.Steps) })
	}
}

// startRelay puts the test in the place of the bridge, after the first answer.
func startRelay(t *testing.T, change func(*Options)) (*Bridge, net.Conn, *bufio.Reader) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	b := startFake(t, "relay", func(o *Options) {
		o.Env = append(o.Env, relayVariable+"="+listener.Addr().String())
		if change != nil {
			change(o)
		}
	})
	wire, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = wire.Close() })
	_ = wire.SetDeadline(time.Now().Add(time.Minute))
	return b, wire, bufio.NewReader(wire)
}

// play puts itself in the place of the bridge and goes through the steps.
func play(t *testing.T, steps []step) {
	b, wire, lines := startRelay(t, nil)
	endings := map[int64]chan ending{}
	cancels := map[int64]context.CancelFunc{}
	for _, s := range steps {
		switch {
		case s.Call != "":
			ctx, cancel := context.WithCancel(soon(t, time.Minute))
			ended := make(chan ending, 1)
			endings[s.ID], cancels[s.ID] = ended, cancel
			go func() {
				value, err := callByName(ctx, b, s.Call, s.Params)
				ended <- ending{value, err}
			}()
		case s.Writes != nil:
			line, err := lines.ReadString('\n')
			if err != nil || line != *s.Writes+"\n" {
				t.Fatalf("wrote %q, %v\nwant  %q", line, err, *s.Writes)
			}
		case s.Reads != nil:
			if _, err := wire.Write([]byte(*s.Reads + "\n")); err != nil {
				t.Fatal(err)
			}
		case s.Cancel != 0:
			cancels[s.Cancel]()
		case s.Down:
			_ = wire.Close()
		case s.Ends != 0:
			checkEnding(t, <-endings[s.Ends], s)
		default:
			t.Fatalf("a step that this test does not know: %+v", s)
		}
	}
	for _, cancel := range cancels {
		cancel()
	}
}

func callByName(ctx context.Context, b *Bridge, name string, params json.RawMessage) (any, error) {
	if params == nil {
		params = json.RawMessage("{}")
	}
	switch name {
	case "info":
		return b.Info(ctx)
	case "status":
		return b.Status(ctx)
	case "discover":
		return b.Discover(ctx)
	case "getReport":
		return callWith(ctx, b.GetReport, params)
	case "listReports":
		return callWith(ctx, b.ListReports, params)
	case "resume":
		return callWith(ctx, b.Resume, params)
	case MethodReportIncorrectImageCaptcha:
		return callWith(ctx, b.ReportIncorrectImageCaptcha, params)
	case MethodReportIncorrectRecaptcha:
		return callWith(ctx, b.ReportIncorrectRecaptcha, params)
	case MethodReportCorrectRecaptcha:
		return callWith(ctx, b.ReportCorrectRecaptcha, params)
	case MethodReportIncorrectHcaptcha:
		return callWith(ctx, b.ReportIncorrectHcaptcha, params)
	}
	return nil, errors.New("no such method: " + name)
}

func callWith[P, R any](ctx context.Context, method func(context.Context, P) (R, error), raw json.RawMessage) (any, error) {
	var params P
	if err := json.Unmarshal(raw, &params); err != nil {
		return nil, err
	}
	return method(ctx, params)
}

func checkEnding(t *testing.T, got ending, want step) {
	t.Helper()
	switch {
	case want.Cancelled:
		if !errors.Is(got.err, context.Canceled) {
			t.Errorf("not cancelled: %v", got.err)
		}
	case want.Refused != "":
		var wrong *CallError
		if !errors.As(got.err, &wrong) || *wrong.Data.Pointer != "/"+want.Refused {
			t.Errorf("not refused: %v", got.err)
		}
	case want.Error != nil:
		fields := fieldsOf(t, got.err)
		for name, value := range want.Error {
			if !reflect.DeepEqual(fields[name], value) {
				t.Errorf("%s is %v, want %v", name, fields[name], value)
			}
		}
	default:
		if got.err != nil {
			t.Fatal(got.err)
		}
		if value := plain(t, got.value); !reflect.DeepEqual(value, plain(t, want.Value)) {
			t.Errorf("got  %v\nwant %s", value, want.Value)
		}
	}
}

// fieldsOf shows an error as the transcripts name its parts.
func fieldsOf(t *testing.T, err error) map[string]any {
	t.Helper()
	var (
		refused *ReportError
		wrong   *CallError
		down    *DownError
	)
	var fields map[string]any
	outcome := func(o Outcome) any {
		if o == "" {
			return nil
		}
		return string(o)
	}
	switch {
	case errors.As(err, &refused):
		fields = map[string]any{
			"type": "report", "code": float64(refused.Code), "kind": refused.Kind, "outcome": outcome(refused.Outcome),
			"retryable": refused.Retryable, "taskId": float64(refused.TaskID), "hints": []any{},
			"data": plain(t, refused.Raw),
		}
		if len(refused.Hints) > 0 {
			fields["hints"] = plain(t, refused.Hints)
		}
	case errors.As(err, &wrong):
		fields = map[string]any{
			"type": "protocol", "code": float64(wrong.Code), "kind": wrong.Kind, "data": plain(t, wrong.Data),
		}
	case errors.As(err, &down):
		fields = map[string]any{"type": "down", "outcome": outcome(down.Outcome), "taskId": float64(down.TaskID)}
	default:
		t.Fatalf("an error of another type: %v", err)
	}
	return fields
}

// trailingZeros are those of a time, which time.Time does not write.
var trailingZeros = regexp.MustCompile(`(T[0-9:]{8}\.[0-9]*?)0+Z"`)

func plain(t *testing.T, value any) any {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	data = trailingZeros.ReplaceAll(data, []byte(`${1}Z"`))
	var result any
	if err := json.Unmarshal(data, &result); err != nil {
		t.Fatal(err)
	}
	return result
}
