//go:build linux

package image_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/tangle-network/microvm-runtime/image"
)

// order is what a child does: some calls at once, of Pull or of Import. It prints a line for each: the digest, the base's path and its inode, or the error.
type order struct {
	Store, Pull, Import, Name string
	Calls                     int
}

func init() { image.Child = child }

func child(text string) int {
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		panic(err)
	}
	var wg sync.WaitGroup
	lines := make([]string, o.Calls)
	for i := range lines {
		wg.Go(func() { lines[i] = o.call() })
	}
	wg.Wait()
	fmt.Println(strings.Join(lines, "\n"))
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		panic(err)
	}
	for line := range bytes.Lines(status) {
		if bytes.HasPrefix(line, []byte("VmHWM:")) {
			fmt.Print(string(line))
		}
	}
	return 0
}

func (o order) call() string {
	s, err := image.Open(o.Store)
	if err != nil {
		return err.Error()
	}
	var made image.Image
	if o.Pull != "" {
		made, err = s.Pull(context.Background(), o.Pull, amd64)
	} else {
		made, err = s.Import(context.Background(), o.Import, o.Name, &image.ImportOptions{Platform: "linux/amd64"})
	}
	if err != nil {
		return err.Error()
	}
	info, err := os.Stat(made.Path)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(made.Digest, " ", made.Path, " ", info.ModTime().UnixNano())
}

// start starts a child and returns a function that waits for its lines.
func (o order) start(t testing.TB) func() []string {
	t.Helper()
	text, err := json.Marshal(o)
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), image.ChildEnv+"="+string(must(t, text, err)), "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	out = must(t, out, err)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() (lines []string) {
		t.Helper()
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			lines = append(lines, scanner.Text())
		}
		if err := cmd.Wait(); err != nil {
			t.Fatal(err)
		}
		return lines
	}
}

// startAndKill starts a child and waits until the context has killed it.
func startAndKill(t testing.TB, ctx context.Context, o order) {
	t.Helper()
	text, err := json.Marshal(o)
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), image.ChildEnv+"="+string(must(t, text, err)))
	if err := cmd.Run(); cmd.ProcessState == nil || cmd.ProcessState.Exited() {
		t.Fatalf("it was not killed: %v", err)
	}
}

// allocated returns what all files of a directory take on disk.
func allocated(t testing.TB, dir string) (sum int64) {
	t.Helper()
	for _, name := range left(t, dir) {
		var stat syscall.Stat_t
		if err := syscall.Stat(filepath.Join(dir, name), &stat); err == nil {
			sum += stat.Blocks * 512
		}
	}
	return sum
}
