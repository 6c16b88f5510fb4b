//go:build unix

package reportbridge

import (
	"os"
	"os/exec"
	"syscall"
)

// ownGroup puts the child into a process group of its own, so that an interrupt typed at a terminal is
// this program's to decide about, and what the child started can be ended with it.
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func terminateGroup(p *os.Process) { _ = syscall.Kill(-p.Pid, syscall.SIGTERM) }

func killGroup(p *os.Process) { _ = syscall.Kill(-p.Pid, syscall.SIGKILL) }

// endedBy returns the signal that ended the process, nil if none did.
func endedBy(state *os.ProcessState) os.Signal {
	if status, ok := state.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return status.Signal()
	}
	return nil
}
