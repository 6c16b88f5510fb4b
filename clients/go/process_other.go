//go:build !unix

package reportbridge

import (
	"os"
	"os/exec"
)

// Where there are no process groups and no SIGTERM, the child alone is ended, and at once. Untested.

func ownGroup(*exec.Cmd) {}

func terminateGroup(p *os.Process) { _ = p.Kill() }

func killGroup(p *os.Process) { _ = p.Kill() }

func endedBy(*os.ProcessState) os.Signal { return nil }
