package reportbridge

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

const (
	// CommandName is the command that is looked for on PATH.
	CommandName = "report-bridge"

	// CommandVariable names the environment variable that holds the path of the command.
	CommandVariable = "REPORT_BRIDGE_BIN"
)

// The bridge's own variables that the options set.
const (
	varKey        = "ANTICAPTCHA_CLIENT_KEY"
	varKeyFile    = "ANTICAPTCHA_CLIENT_KEY_FILE"
	varKeyCommand = "REPORT_BRIDGE_KEY_COMMAND"
	varSandbox    = "REPORT_BRIDGE_SANDBOX"
	varURL        = "REPORT_BRIDGE_URL"
	varLedger     = "REPORT_BRIDGE_LEDGER"
)

// install has the lines of the README that mend a program or a Python that is missing.
const install = "to install it with Python 3.11 or newer from the project's folder, here ~/report-bridge: " +
	"python3 -m venv ~/.report-bridge && ~/.report-bridge/bin/pip install ~/report-bridge; " +
	`then export PATH="$HOME/.report-bridge/bin:$PATH", or set Options.Path or ` + CommandVariable + " to the whole path of report-bridge in there; " +
	"make dist in the project's folder makes a wheel, and a program that needs no Python"

// explainStart says why a file that is there could not be started, and what to do.
func explainStart(plan launch, err error) error {
	if plan.dir != "" {
		// The dot asks for the right to enter it, too.
		if _, dirErr := os.Stat(plan.dir + "/."); dirErr != nil {
			return fmt.Errorf("report-bridge: cannot start: Options.Dir, %s, cannot be entered: %w; name a folder that is there", plan.dir, errors.Unwrap(dirErr))
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		if script, readErr := os.ReadFile(plan.path); readErr == nil && bytes.HasPrefix(script, []byte("#!")) {
			line, _, _ := bytes.Cut(script[2:], []byte("\n"))
			if words := strings.Fields(string(line)); len(words) > 0 && isMissing(words[0]) {
				return fmt.Errorf("report-bridge: cannot start %s: %s, which its first line names, does not exist; %s (%w)", plan.path, words[0], install, err)
			}
		}
	}
	return fmt.Errorf("report-bridge: cannot start: %w; %s", err, install)
}

func isMissing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

// NotFoundError says that the command was not found, and where it was looked for.
type NotFoundError struct {
	// Tried has a sentence for each place, in order.
	Tried []string
}

// Error lists the places.
func (e *NotFoundError) Error() string {
	return "report-bridge: command not found; tried: " + strings.Join(e.Tried, "; ") + "; " + install
}

// Is makes errors.Is(err, exec.ErrNotFound) true.
func (e *NotFoundError) Is(target error) bool { return target == exec.ErrNotFound }

// FindCommand returns the path of the command: path if it is given, else the value of REPORT_BRIDGE_BIN,
// else report-bridge on PATH. A place that was named and is wrong is an error: the next one is not tried.
func FindCommand(path string) (string, error) {
	var tried []string
	for _, place := range []struct{ name, value string }{
		{"Options.Path", path},
		{CommandVariable, os.Getenv(CommandVariable)},
		{"PATH", CommandName},
	} {
		if place.value == "" {
			tried = append(tried, place.name+" is not set")
			continue
		}
		found, err := exec.LookPath(place.value)
		if err == nil {
			return found, nil
		}
		tried = append(tried, fmt.Sprintf("%s: %s", place.name, lookupReason(place.value, err)))
		break
	}
	return "", &NotFoundError{Tried: tried}
}

func lookupReason(value string, err error) string {
	var failure *exec.Error
	if errors.As(err, &failure) {
		err = failure.Err
	}
	return fmt.Sprintf("%q: %v", value, err)
}

// launch is what is needed to start the same child again. The environment is behind a function so that
// no print of a struct can reach the key.
type launch struct {
	path string
	args []string
	dir  string
	env  func() []string
}

func planLaunch(o Options) (launch, error) {
	if o.ClientKey != "" && o.KeyFile != "" {
		return launch{}, errors.New("report-bridge: ClientKey and KeyFile are both set")
	}
	for _, arg := range o.Args {
		if o.ClientKey != "" && strings.Contains(arg, o.ClientKey) {
			return launch{}, errors.New("report-bridge: Args holds the client key; everybody on the machine can read a command line")
		}
	}
	ledgerIsURL := strings.Contains(o.Ledger, "://")
	if ledgerIsURL && o.Sandbox {
		return launch{}, errors.New("report-bridge: Sandbox heeds a ledger only as a flag, which a URL with a password must not be; " +
			"name a file in Ledger, or put --ledger and a URL without a password into Args")
	}
	path, err := FindCommand(o.Path)
	if err != nil {
		return launch{}, err
	}
	// It was found from this folder, and would be started from Dir.
	if path, err = filepath.Abs(path); err != nil {
		return launch{}, fmt.Errorf("report-bridge: %w", err)
	}
	env := slices.Clone(o.Env)
	if o.Env == nil {
		env = os.Environ()
	}
	if o.ClientKey != "" || o.KeyFile != "" || o.Sandbox {
		env = without(env, varKey, varKeyFile, varKeyCommand)
	}
	for _, one := range []struct{ name, value string }{
		{varKey, o.ClientKey}, {varKeyFile, o.KeyFile}, {varURL, o.URL},
	} {
		if one.value != "" {
			env = append(without(env, one.name), one.name+"="+one.value)
		}
	}
	args := slices.Clone(o.Args)
	switch {
	case ledgerIsURL: // it may hold a password, and everybody on the machine can read a command line
		env = append(without(env, varLedger), varLedger+"="+o.Ledger)
	case o.Ledger != "": // the sandbox ignores the variable
		args = append(args, "--ledger="+o.Ledger)
	}
	if o.Sandbox {
		env = append(without(env, varSandbox), varSandbox+"=1")
	}
	return launch{path: path, args: args, dir: o.Dir, env: func() []string { return env }}, nil
}

func without(env []string, names ...string) []string {
	return slices.DeleteFunc(env, func(entry string) bool {
		name, _, _ := strings.Cut(entry, "=")
		return slices.Contains(names, name)
	})
}
