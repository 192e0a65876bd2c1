//go:build linux

package fakevmm

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
)

// outcome is what a process has left. Its standard output is without what it logged there.
type outcome struct{ status, stdout, stderr string }

func (o outcome) String() string {
	return fmt.Sprintf("%s, out %q, err %q", o.status, o.stdout, o.stderr)
}

// logged is what is logged: a line, or the two of a panic. The guest may have written in front of it.
var logged = regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9} \[[^\]\n]*\] (Firecracker panicked at .*\n)?.*\n`)

// machines are a real and a fake firecracker, and directories for them that differ only in what a kernel is.
func (l *lab) machines(t *testing.T, config string) (real, fake *exec.Cmd) {
	t.Helper()
	binary, err := Install(t.TempDir(), Faults{Version: l.version})
	if err != nil {
		t.Fatal(err)
	}
	kernel, err := json.Marshal(Kernel{Text: "x", Reset: true})
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		"config": config, "disk": strings.Repeat("\x00", 4096), "log": "", "metrics": "", "template": "{}", "broken": `{"kvm_capabilities": ["x"]}`, "binary": "\xff\xfe", "kernel": string(kernel),
	}
	made := []*exec.Cmd{exec.Command(l.binary), exec.Command(binary)}
	for i, cmd := range made {
		cmd.Dir = t.TempDir()
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(cmd.Dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if i == 0 {
			if err := tinyguest.Write(filepath.Join(cmd.Dir, "kernel"), tinyguest.Program{Text: "x", After: tinyguest.Reset}); err != nil {
				t.Fatal(err)
			}
		}
	}
	return made[0], made[1]
}

// end runs a command to its end.
func end(t *testing.T, cmd *exec.Cmd, args []string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	run := exec.CommandContext(ctx, cmd.Path, args...)
	var stdout, stderr bytes.Buffer
	run.Dir, run.SysProcAttr, run.Stdout, run.Stderr, run.Env = cmd.Dir, cmd.SysProcAttr, &stdout, &stderr, []string{}
	err := run.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	status, _ := strings.CutSuffix(run.ProcessState.String(), " (core dumped)")
	return outcome{status, logged.ReplaceAllString(stdout.String(), ""), stderr.String()}
}

// runAlike runs both in directories with a configuration file, and holds what they leave against each other.
func (l *lab) runAlike(t *testing.T, config string, args []string) {
	t.Helper()
	real, fake := l.machines(t, config)
	if r, f := end(t, real, args), end(t, fake, args); r != f {
		t.Errorf("%q of %s\nreal: %v\nfake: %v", args, config, r, f)
	}
}

// A VMM that could not load a snapshot ends, and says so.
func TestRealFailedLoadsEndAlike(t *testing.T) {
	l := newLab(t)
	real, fake := l.machines(t, "")
	var outcomes []outcome
	var group sync.WaitGroup
	for _, cmd := range []*exec.Cmd{real, fake} {
		group.Go(func() {
			conn := dial(t, filepath.Join(cmd.Dir, "api"))
			defer conn.Close()
			l.ask(conn, bufio.NewReader(conn), put("/snapshot/load", `{"snapshot_path":"none","mem_file_path":"none"}`))
		})
		outcomes = append(outcomes, end(t, cmd, []string{"--api-sock", "api"}))
	}
	group.Wait()
	if outcomes[0] != outcomes[1] {
		t.Errorf("real: %v\nfake: %v", outcomes[0], outcomes[1])
	}
}

// What newer versions take besides is theirs alone.
func TestNewerVersionsTakeMore(t *testing.T) {
	for name, row := range map[string]struct {
		config string
		args   []string
	}{
		"PCI":                {configurations["the least"], noAPI("--enable-pci")},
		"a template in line": {configurations["a template in line"], noAPI()},
		"a log to make":      {configurations["the least"], noAPI("--log-path", "none")},
		"metrics to make":    {configurations["metrics into no file"], noAPI()},
	} {
		for version, want := range map[string]bool{"1.12.1": false, "1.16.1": true} {
			_, fake := (&lab{version: version}).machines(t, row.config)
			fake.SysProcAttr = nil // it needs no namespace
			if o := end(t, fake, row.args); (o.status == "exit status 0") != want {
				t.Errorf("%s with %s: %v", name, version, o)
			}
		}
	}
}
