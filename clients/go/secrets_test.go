//go:build unix

package reportbridge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

const canary = "c4n4ryc4n4ryc4n4ryc4n4ryc4n4ry42"

// No verb and no logger shows the key of options, parameters or a bridge.
func TestKeyIsNeverPrinted(t *testing.T) {
	options := Options{ClientKey: canary, Env: []string{varKey + "=" + canary}, Ledger: "postgresql://u:" + canary + "@h/d"}
	b := startFake(t, "good", func(o *Options) { o.ClientKey = canary })
	subjects := []any{
		options, &options, b, struct{ O Options }{options}, []Options{options}, map[string]Options{"a": options},
		ReportParams{TaskID: 1, ClientKey: canary}, &ReportParams{ClientKey: canary},
		GetReportParams{ClientKey: canary}, ResumeParams{ClientKey: canary},
	}
	for _, subject := range subjects {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
			if text := fmt.Sprintf(verb, subject); strings.Contains(text, canary) || strings.Contains(text, fmt.Sprintf("%x", canary)) {
				t.Errorf("%s of %T: %s", verb, subject, text)
			}
		}
		var lines bytes.Buffer
		slog.New(slog.NewJSONHandler(&lines, nil)).Info("m", "a", subject)
		slog.New(slog.NewTextHandler(&lines, nil)).Info("m", "a", subject)
		if strings.Contains(lines.String(), canary) {
			t.Errorf("slog of %T: %s", subject, lines.String())
		}
	}
	// The fields of a copied struct, which no method guards.
	if text := fmt.Sprintf("%+v %#v", b.plan, b.plan); strings.Contains(text, canary) {
		t.Errorf("the plan shows %s", text)
	}
	if data, err := json.Marshal(options); err != nil || bytes.Contains(data, []byte(canary)) {
		t.Errorf("JSON of options: %s, %v", data, err)
	}
}

// Masking the parameters for people does not change what is sent.
func TestParametersStillReachTheWire(t *testing.T) {
	data, err := encodeRequest(nil, "m", ReportParams{TaskID: 1, ClientKey: canary, TaskType: "<&>"})
	want := `{"jsonrpc":"2.0","method":"m","params":{"taskId":1,"clientKey":"` + canary + `","taskType":"<&>"}}`
	if err != nil || string(data) != want {
		t.Errorf("got %s, %v", data, err)
	}
}

// An excerpt of a stray line has the key masked.
func TestExcerptIsMasked(t *testing.T) {
	told := make(chan ProtocolError, 1)
	b := startFake(t, "echo-key", func(o *Options) { o.OnProtocolError = func(e ProtocolError) { told <- e } })
	if _, err := b.ReportIncorrectRecaptcha(soon(t, 30*time.Second), ReportParams{TaskID: 1, ClientKey: canary}); err != nil {
		t.Fatal(err)
	}
	if e := <-told; strings.Contains(e.Error(), canary[:8]) || !strings.Contains(e.Excerpt, masked) {
		t.Errorf("got %v", e)
	}
}

// The key reaches the child in its environment, alone among the sources of a key; a ledger without a password as a flag,
// the only way that counts in the sandbox.
func TestEnvironmentOfTheChild(t *testing.T) {
	base := []string{"A=1", varKeyFile + "=/f", varKeyCommand + "=c", varKey + "=old", varSandbox + "=0"}
	for name, one := range map[string]struct {
		options Options
		want    []string
		args    []string
	}{
		"as it is": {Options{}, base, nil},
		"key":      {Options{ClientKey: canary}, []string{"A=1", varSandbox + "=0", varKey + "=" + canary}, nil},
		"key file": {Options{KeyFile: "/g"}, []string{"A=1", varSandbox + "=0", varKeyFile + "=/g"}, nil},
		"sandbox":  {Options{Sandbox: true}, []string{"A=1", varSandbox + "=1"}, nil},
		"others": {Options{Sandbox: true, URL: "http://127.0.0.1:1", Ledger: "memory", Args: []string{"--queue", "9"}},
			[]string{"A=1", varURL + "=http://127.0.0.1:1", varSandbox + "=1"}, []string{"--queue", "9", "--ledger=memory"}},
		"server": {Options{Ledger: "postgresql://u:" + canary + "@h/d"}, append(slices.Clone(base), varLedger+"=postgresql://u:"+canary+"@h/d"), nil},
	} {
		one.options.Path, one.options.Env = "/bin/sh", base
		plan, err := planLaunch(one.options)
		if err != nil || !slices.Equal(plan.env(), one.want) || !slices.Equal(plan.args, one.args) {
			t.Errorf("%s: %v %v, %v", name, plan.args, plan.env(), err)
		}
	}
	if _, err := planLaunch(Options{Path: "/bin/sh", ClientKey: canary, KeyFile: "/f"}); err == nil {
		t.Error("two sources of the key are taken")
	}
	_, err := planLaunch(Options{Path: "/bin/sh", ClientKey: canary, Args: []string{"--key=" + canary}})
	if err == nil || strings.Contains(err.Error(), canary) {
		t.Errorf("a key among the arguments: %v", err)
	}
	// The sandbox would ignore it without a word.
	_, err = planLaunch(Options{Path: "/bin/sh", Sandbox: true, Ledger: "postgresql://u:" + canary + "@h/d"})
	if err == nil || strings.Contains(err.Error(), canary) || !strings.Contains(err.Error(), "name a file") {
		t.Errorf("a server's ledger in the sandbox: %v", err)
	}
}

// The command is looked for in three places, and the error names those that were tried.
func TestFindCommand(t *testing.T) {
	dir := t.TempDir()
	command := filepath.Join(dir, CommandName)
	if err := os.WriteFile(command, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	t.Setenv(CommandVariable, "")
	if found, err := FindCommand(""); err != nil || found != command {
		t.Errorf("PATH: %s, %v", found, err)
	}
	t.Setenv(CommandVariable, "/bin/sh")
	if found, err := FindCommand(""); err != nil || found != "/bin/sh" {
		t.Errorf("variable: %s, %v", found, err)
	}
	if found, err := FindCommand(command); err != nil || found != command {
		t.Errorf("option: %s, %v", found, err)
	}
	t.Setenv(CommandVariable, filepath.Join(dir, "absent"))
	_, err := Start(context.Background(), Options{})
	var missing *NotFoundError
	if !errors.As(err, &missing) || !errors.Is(err, exec.ErrNotFound) || len(missing.Tried) != 2 {
		t.Errorf("a named place that is wrong: %v", err)
	}
	t.Setenv(CommandVariable, "")
	t.Setenv("PATH", t.TempDir())
	_, err = FindCommand("")
	if !errors.As(err, &missing) || len(missing.Tried) != 3 || !strings.Contains(err.Error(), CommandVariable) {
		t.Errorf("nowhere: %v", err)
	}
}
