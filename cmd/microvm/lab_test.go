//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tangle-network/microvm-runtime/internal/setup"
	"github.com/tangle-network/microvm-runtime/internal/testing/leak"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// TestLabCommands executes in a real guest: streams are apart, and the command exits as the guest's does, or as what ended it has it.
func TestLabCommands(t *testing.T) {
	p := labEnvironment(t)
	expect(t, 0, "create", "one")
	expect(t, 0, "start", "one")
	stdout, stderr := expect(t, 7, "exec", "one", "sh", "-c", "echo out; echo err >&2; exit 7")
	if stdout != "out\n" || stderr != "err\n" {
		t.Errorf("standard output %q, standard error %q", stdout, stderr)
	}
	expect(t, 128+9, "exec", "one", "sh", "-c", "kill -9 $$")
	copies(t)
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		signalled(t, signal)
	}
	if stdout, _ := expect(t, 0, "exec", "one", "sh", "-c", "cat /proc/[0-9]*/comm"); strings.Contains(stdout, "sleep") {
		t.Errorf("what was interrupted runs still:\n%s", stdout)
	}
	id, _ := expect(t, 0, "exec", "-d", "one", "sh", "-c", "echo later; exit 4")
	if stdout, _ := expect(t, 0, "ps", "one"); !strings.Contains(stdout, strings.TrimSpace(id)) {
		t.Errorf("ps:\n%s", stdout)
	}
	if stdout, _ := expect(t, 4, "attach", "one", strings.TrimSpace(id)); stdout != "later\n" {
		t.Errorf("attached to, it says %q", stdout)
	}
	expect(t, 0, "destroy", "one")
	expect(t, 3, "run", p.Base, "sh", "-c", "exit 3")
	runsWithVolume(t, p.Base)
	if stdout, _ := expect(t, 0, "ls", "--json"); stdout != "[]\n" {
		t.Errorf("machines %s", stdout)
	}
}

// labEnvironment points the command at the lab's parts, with a state of the test's own.
func labEnvironment(t *testing.T) setup.Parts {
	t.Helper()
	p := ring.Lab(t)
	dir := t.TempDir()
	for name, value := range map[string]string{
		"MICROVM_FIRECRACKER_BIN": p.Firecracker, "MICROVM_JAILER_BIN": p.Jailer, "MICROVM_FIRECRACKER_KERNEL": p.Vmlinux, "MICROVM_KERNEL_MODULES": p.Modules,
		"MICROVM_AGENT_BIN": p.Agent, "MICROVM_IMAGE": p.Base, "MICROVM_STATE_DIR": filepath.Join(dir, "state"), "MICROVM_SOCKET_DIR": filepath.Join(dir, "run"),
		"MICROVM_JAILER_CGROUP_PARENT": leak.Slice(filepath.Base(dir)),
	} {
		t.Setenv(name, value)
	}
	t.Cleanup(func() { expect(t, 0, "purge", "--yes") })
	return p
}

// TestLabRunImage runs an image of a registry: pulled once, executed as it says, with and without a terminal.
func TestLabRunImage(t *testing.T) {
	p := labEnvironment(t)
	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(server.Close)
	program, err := os.ReadFile(p.Busybox)
	if err != nil {
		t.Fatal(err)
	}
	reference := strings.TrimPrefix(server.URL, "http://") + "/busy:1"
	push(t, reference, imageOf(t, map[string][]byte{"bin/busybox": program}, v1.Config{
		Entrypoint: []string{"/bin/busybox"}, Cmd: []string{"sh", "-c", "echo $A; busybox id -u; busybox pwd"}, Env: []string{"A=of the image", "PATH=/bin"}, User: "1000", WorkingDir: "/bin",
	}))
	if stdout, _ := expect(t, 0, "run", reference); stdout != "of the image\n1000\n/bin\n" {
		t.Errorf("it says %q", stdout)
	}
	server.Close() // it is here now
	expect(t, 0, "create", "one", "--image", reference)
	expect(t, 0, "start", "one")
	if stdout, _ := expect(t, 0, "inspect", "one"); !strings.Contains(stdout, `"working_dir": "/bin"`) {
		t.Errorf("inspect:\n%s", stdout)
	}
	if stdout, _ := expect(t, 5, "exec", "-t", "one", "/bin/busybox", "sh", "-c", "busybox tty; exit 5"); !strings.HasPrefix(stdout, "/dev/pts/") {
		t.Errorf("its terminal is %q", stdout)
	}
	if stdout, _ := expect(t, 1, "exec", "one", "/bin/busybox", "tty"); stdout != "not a tty\n" {
		t.Errorf("without one it says %q", stdout)
	}
	types(t)
	copiesTree(t)
	fetches(t, program)
	losesNothing(t, program)
	expect(t, 0, "destroy", "one")
	expect(t, 0, "image", "rm", reference)
}

// expect runs microvm and checks the status that it exits with.
func expect(t *testing.T, code int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs strings.Builder
	cmd := exec.Command("microvm", args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); cmd.ProcessState.ExitCode() != code {
		t.Errorf("%q: %v, want status %d\n%s%s", args, err, code, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

// signalled sends a signal to a microvm that executes.
func signalled(t *testing.T, signal syscall.Signal) {
	t.Helper()
	cmd := exec.Command("microvm", "exec", "one", "sh", "-c", "echo ready; exec sleep 1000")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		cmd.Process.Kill()
		t.Errorf("%q, %v", line, err)
	} else if err := cmd.Process.Signal(signal); err != nil {
		t.Error(err)
	}
	err = cmd.Wait()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 128+int(signal) {
		t.Errorf("after %v: %v, want status %d", signal, err, 128+int(signal))
	}
}

// copies copies a tree into the guest and back, as files and as a tar.
func copies(t *testing.T) {
	t.Helper()
	from, to := t.TempDir(), t.TempDir()
	content := strings.Repeat("content\n", 1<<17)
	if err := errors.Join(os.MkdirAll(from+"/tree/below", 0o700), os.WriteFile(from+"/tree/below/f", []byte(content), 0o640), os.Symlink("below/f", from+"/tree/link")); err != nil {
		t.Fatal(err)
	}
	expect(t, 0, "cp", from+"/tree", "one:/root/")
	if stdout, _ := expect(t, 0, "exec", "one", "stat", "-L", "-c", "%a %u %s", "/root/tree/link"); stdout != fmt.Sprintf("640 0 %d\n", len(content)) {
		t.Errorf("in the guest is %q", stdout)
	}
	expect(t, 0, "cp", "one:/root/tree", to+"/back")
	if text, err := os.ReadFile(to + "/back/link"); err != nil || string(text) != content {
		t.Errorf("%d bytes came back, %v", len(text), err)
	}
	tarred, _ := expect(t, 0, "cp", "one:/root/tree/below/f", "-")
	if !strings.Contains(tarred, content) {
		t.Errorf("a tar of %d bytes came", len(tarred))
	}
	expect(t, 125, "cp", "one:/nowhere", to)
}
