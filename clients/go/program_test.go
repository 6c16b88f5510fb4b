package reportbridge

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// packTiny makes an archive of a program that only says who it is, and the sum that belongs to it.
func packTiny(t *testing.T, extra ...string) (archive []byte, sum string) {
	t.Helper()
	files := map[string]string{CommandName: "#!/bin/sh\necho tiny\n", "lib/part": "a part\n"}
	var sums strings.Builder
	for name, content := range files {
		fmt.Fprintf(&sums, "%x  %s\n", sha256.Sum256([]byte(content)), name)
	}
	files[sumsFile] = sums.String()
	for _, name := range extra {
		files[name] = "not listed"
	}
	var packed bytes.Buffer
	zip := gzip.NewWriter(&packed)
	tape := tar.NewWriter(zip)
	for name, content := range files {
		header := &tar.Header{Name: CommandName + "/" + name, Mode: 0o755, Size: int64(len(content))}
		if err := tape.WriteHeader(header); err != nil {
			t.Fatal(err)
		}
		if _, err := tape.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	_ = tape.Close()
	_ = zip.Close()
	return packed.Bytes(), fmt.Sprintf("%x", sha256.Sum256([]byte(sums.String())))
}

// UnpackProgram gives a program that runs, once, however many ask at the same time.
func TestUnpackProgram(t *testing.T) {
	archive, sum := packTiny(t)
	folder := filepath.Join(t.TempDir(), "cache")
	var all sync.WaitGroup
	for range 8 {
		all.Add(1)
		go func() {
			defer all.Done()
			path, err := UnpackProgram(archive, folder, strings.ToUpper(sum))
			if err != nil {
				t.Error(err)
			} else if found, err := FindCommand(path); err != nil || found != path {
				t.Errorf("FindCommand: %q, %v", found, err)
			}
		}()
	}
	all.Wait()
	if entries, err := os.ReadDir(folder); err != nil || len(entries) != 1 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

// A program of which any file was changed, added or taken away is refused.
func TestCheckProgramNotices(t *testing.T) {
	for name, change := range map[string]func(folder string) error{
		"was changed":     func(f string) error { return os.WriteFile(filepath.Join(f, "lib/part"), []byte("a virus\n"), 0o644) },
		"does not belong": func(f string) error { return os.WriteFile(filepath.Join(f, "lib/more"), nil, 0o644) },
		"is missing":      func(f string) error { return os.Remove(filepath.Join(f, "lib/part")) },
		"not ":            func(f string) error { return os.WriteFile(filepath.Join(f, sumsFile), nil, 0o644) },
		"no such file":    func(f string) error { return os.Remove(filepath.Join(f, sumsFile)) },
	} {
		archive, sum := packTiny(t)
		folder := t.TempDir()
		path, err := UnpackProgram(archive, folder, sum)
		if err != nil {
			t.Fatal(err)
		}
		if err := CheckProgram(path, sum); err != nil {
			t.Fatal(err)
		}
		if err := change(filepath.Dir(path)); err != nil {
			t.Fatal(err)
		}
		if err := CheckProgram(path, sum); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := UnpackProgram(archive, folder, sum); err == nil {
			t.Errorf("%s: unpacked all the same", name)
		}
	}
}

// An archive with another sum, with a file that is not listed, or that leads out of its folder leaves nothing behind.
func TestUnpackProgramRefuses(t *testing.T) {
	for _, extra := range []string{"more", "../../../outside"} {
		archive, sum := packTiny(t, extra)
		folder := filepath.Join(t.TempDir(), "cache")
		if path, err := UnpackProgram(archive, folder, sum); err == nil {
			t.Errorf("%s: unpacked to %s", extra, path)
		}
		if entries, _ := os.ReadDir(folder); len(entries) != 0 {
			t.Errorf("%s: left behind: %v", extra, entries)
		}
	}
	archive, _ := packTiny(t)
	if _, err := UnpackProgram(archive, t.TempDir(), strings.Repeat("0", 64)); err == nil {
		t.Error("a wrong sum was taken")
	}
	if _, err := UnpackProgram([]byte("no archive"), t.TempDir(), strings.Repeat("0", 64)); err == nil {
		t.Error("no archive was taken")
	}
}
