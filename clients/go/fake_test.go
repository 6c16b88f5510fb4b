//go:build unix

package reportbridge

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// The test binary plays other parts when these variables are set.
const (
	fakeVariable  = "REPORTBRIDGE_TEST_FAKE"
	relayVariable = "REPORTBRIDGE_TEST_RELAY"
	saysVariable  = "REPORTBRIDGE_TEST_SAYS"
)

// quick shortens the waits of a child's end.
var quick = patience{answers: 2 * time.Second, leave: 200 * time.Millisecond, drain: 400 * time.Millisecond}

func TestMain(m *testing.M) {
	if mode := os.Getenv(fakeVariable); mode != "" {
		os.Exit(playFake(mode))
	}
	os.Exit(m.Run())
}

type request struct {
	ID     json.RawMessage `json:"id"`
	Method string          `json:"method"`
	Params struct {
		TaskID int64           `json:"taskId"`
		ID     json.RawMessage `json:"id"`
		Key    string          `json:"clientKey"`
	} `json:"params"`
}

func success(id json.RawMessage, taskID int64) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":%s,"result":{"status":"success","taskId":%d,"outcome":"accepted","attempts":1,"replayed":false,"durable":true,"elapsedMs":1}}`, id, taskID)
}

func answerInfo(protocol int) {
	fmt.Printf(`{"jsonrpc":"2.0","id":0,"result":{"name":"fake","version":"0","protocol":%d,"pid":%d,"sandbox":true,"framing":"line","limits":{"maxMessage":1048576,"drainSeconds":0.1}}}`+"\n", protocol, os.Getpid())
}

// playFake is a bridge with one fault. Each report mode says what happens after the first report.
func playFake(mode string) int {
	input := bufio.NewReader(os.Stdin)
	if mode == "parent" {
		return playParent()
	}
	if mode == "config-error" {
		fmt.Fprintln(os.Stderr, "the configuration cannot be used")
		return 3
	}
	if mode == "mute" {
		fmt.Fprint(os.Stderr, os.Getenv(saysVariable))
		_, _ = io.Copy(io.Discard, input)
		return 0
	}
	if _, err := input.ReadString('\n'); err != nil {
		return 9
	}
	switch mode {
	case "stubborn":
		signal.Ignore(syscall.SIGTERM)
		answerInfo(1)
	case "other-protocol":
		answerInfo(2)
	default:
		answerInfo(1)
	}
	switch mode {
	case "relay":
		return relay(input)
	case "deaf", "stubborn": // reads nothing more
		time.Sleep(time.Minute)
	case "closes-stdout":
		_ = os.Stdout.Close()
		time.Sleep(time.Minute)
	case "leaves-heir": // the command ends, a process it started holds the pipes
		heir := exec.Command("sleep", "60")
		heir.Stdout, heir.Stderr = os.Stdout, os.Stderr
		if heir.Start() != nil {
			return 8
		}
		fmt.Fprintln(os.Stderr, heir.Process.Pid)
		_, _ = input.ReadString('\n')
		return 0
	}
	for {
		line, err := input.ReadBytes('\n')
		if err != nil {
			return 0
		}
		var r request
		if json.Unmarshal(line, &r) != nil || r.Method == MethodCancelRequest {
			continue
		}
		good := success(r.ID, r.Params.TaskID)
		switch mode {
		case "never":
		case "chatty":
			fmt.Fprintln(os.Stderr, "a line about another task")
		case "garbage":
			fmt.Printf("hello\n\n[1]\n{\"a\":1}\n%s\n", `{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"m"}}`)
			fmt.Println(good)
		case "twice":
			fmt.Printf("%s\n%s\n", good, good)
		case "stranger":
			fmt.Printf("%s\n%s\n", success(json.RawMessage("4711"), 1), good)
		case "crlf":
			fmt.Printf("\r\n%s\r\n", good)
		case "byte-by-byte":
			for _, b := range []byte(good + "\n") {
				_, _ = os.Stdout.Write([]byte{b})
			}
		case "long-line":
			fmt.Printf("{\"x\":\"%s\"}\n%s\n", strings.Repeat("x", 3<<20), good)
		case "bad-result":
			fmt.Printf(`{"jsonrpc":"2.0","id":%s,"result":[7]}`+"\n", r.ID)
		case "flood":
			for i := range 200_000 {
				fmt.Fprintf(os.Stderr, "line %d of many, padded to make the pipe full sooner ........\n", i)
			}
			fmt.Println(good)
		case "dies":
			fmt.Fprintf(os.Stderr, "about to die\ngot %s and %s", r.Params.Key, os.Getenv(varKey))
			return 70
		case "dies-of-its-settings":
			return exitBadConfig
		case "dies-once":
			if _, err := os.Stat(os.Getenv(relayVariable)); err != nil {
				_ = os.WriteFile(os.Getenv(relayVariable), nil, 0o600)
				return 70
			}
			fmt.Println(good)
		case "killed":
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			time.Sleep(time.Minute)
		case "slow":
			time.Sleep(300 * time.Millisecond)
			fmt.Println(good)
		case "echo-key":
			fmt.Printf("%s\n%s\n", bytes.TrimSpace(line), good)
		default:
			fmt.Println(good)
		}
	}
}

// relay puts the test itself in the place of the bridge.
func relay(input io.Reader) int {
	conn, err := net.Dial("tcp", os.Getenv(relayVariable))
	if err != nil {
		return 9
	}
	var copies sync.WaitGroup
	copies.Add(1)
	go func() { defer copies.Done(); _, _ = io.Copy(conn, input); _ = conn.(*net.TCPConn).CloseWrite() }()
	_, _ = io.Copy(os.Stdout, conn)
	return 0
}

// fakeOptions starts the test binary as the bridge with the fault.
func fakeOptions(t *testing.T, mode string) Options {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return Options{Path: self, Env: append(os.Environ(), fakeVariable+"="+mode)}
}

func startFake(t *testing.T, mode string, change func(*Options)) *Bridge {
	t.Helper()
	checkLeaks(t)
	options := fakeOptions(t, mode)
	if change != nil {
		change(&options)
	}
	b, err := start(context.Background(), options, quick)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeNow(b) })
	return b
}

// closeNow ends a bridge without waiting for answers.
func closeNow(b *Bridge) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = b.Close(ctx)
}

// checkLeaks fails the test if a goroutine of this package is left at its end.
func checkLeaks(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		var left []string
		for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
			if left = ourGoroutines(); len(left) == 0 {
				return
			}
		}
		t.Errorf("%d goroutines are left:\n%s", len(left), strings.Join(left, "\n\n"))
	})
}

func ourGoroutines() []string {
	buffer := make([]byte, 1<<20)
	buffer = buffer[:runtime.Stack(buffer, true)]
	var ours []string
	for _, one := range strings.Split(string(buffer), "\n\n") {
		isTest := strings.Contains(one, "testing.tRunner") || strings.Contains(one, "ourGoroutines")
		if strings.Contains(one, "reportbridge.") && !isTest {
			ours = append(ours, one)
		}
	}
	return ours
}

// soon returns a context that ends long before a test does.
func soon(t *testing.T, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}
