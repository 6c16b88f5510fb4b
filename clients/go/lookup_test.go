//go:build unix

package reportbridge

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func writeScript(t *testing.T, content string) string {
	t.Helper()
	script := filepath.Join(t.TempDir(), CommandName)
	if err := os.WriteFile(script, []byte(content), 0o700); err != nil {
		t.Fatal(err)
	}
	return script
}

// A folder that cannot be entered is named, not a Python that is there; a relative path is from this process's folder.
func TestDirOfTheChild(t *testing.T) {
	folder := t.TempDir()
	for _, dir := range []string{filepath.Join(folder, "absent"), "lookup_test.go"} {
		options := fakeOptions(t, "good")
		options.Dir = dir
		_, err := Start(soon(t, 30*time.Second), options)
		if err == nil || !strings.Contains(err.Error(), "Options.Dir, "+dir+", cannot be entered") {
			t.Errorf("got %v", err)
		}
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	script := writeScript(t, "#!/bin/sh\nexit 3\n")
	relative, err := filepath.Rel(here, script)
	if err != nil {
		t.Fatal(err)
	}
	_, err = Start(soon(t, 30*time.Second), Options{Path: relative, Dir: folder})
	var down *DownError
	if !errors.As(err, &down) || down.ExitCode != exitBadConfig {
		t.Errorf("got %v", err)
	}
}

// A Python that is gone is named, with the lines of the README that mend it.
func TestMissingPython(t *testing.T) {
	script := writeScript(t, "#!/gone/python3 -I\nimport bridge\n")
	_, err := Start(soon(t, 30*time.Second), Options{Path: script})
	if err == nil || !strings.Contains(err.Error(), script+": /gone/python3, which its first line names, does not exist") || !strings.Contains(err.Error(), install) {
		t.Errorf("got %v", err)
	}
	if _, err = Start(soon(t, 30*time.Second), Options{Path: script + "-absent"}); err == nil || !strings.Contains(err.Error(), install) {
		t.Errorf("got %v", err)
	}
	page, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"python3 -m venv ~/.report-bridge && ~/.report-bridge/bin/pip install ~/report-bridge", `export PATH="$HOME/.report-bridge/bin:$PATH"`,
	} {
		if !strings.Contains(string(page), "\n"+line) || !strings.Contains(install, line) {
			t.Errorf("%s: not in both the README and %s", line, install)
		}
	}
	// An interpreter that is there, though it has none itself, is not said to be missing.
	if _, err = Start(soon(t, 30*time.Second), Options{Path: writeScript(t, "#!"+script+"\n")}); err == nil || strings.Contains(err.Error(), "does not exist") {
		t.Errorf("got %v", err)
	}
}
