//go:build unix

package reportbridge

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// When this program is killed, its bridge goes too.
func TestNoOrphan(t *testing.T) {
	options := fakeOptions(t, "parent")
	parent := exec.Command(options.Path)
	parent.Env, parent.Stderr = options.Env, os.Stderr
	output, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(output).ReadString('\n')
	_ = parent.Process.Kill()
	_ = parent.Wait()
	var pid int
	if _, scanErr := fmt.Sscan(line, &pid); err != nil || scanErr != nil {
		t.Fatalf("the parent said %q, %v", line, err)
	}
	for deadline := time.Now().Add(5 * time.Second); isAlive(pid); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			t.Fatal("the bridge is still there after 5 s")
		}
	}
}

// playParent is the program that TestNoOrphan kills.
func playParent() int {
	b, err := Start(context.Background(), Options{Sandbox: true})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	info, err := b.Info(context.Background())
	if err != nil {
		return 1
	}
	fmt.Println(info.PID)
	time.Sleep(time.Minute)
	return 0
}

// isAlive does not count a process that only waits to be reaped by whoever inherited it.
func isAlive(pid int) bool {
	if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
		_, rest, _ := strings.Cut(string(stat), ") ")
		return !strings.HasPrefix(rest, "Z")
	}
	return syscall.Kill(pid, 0) == nil
}
