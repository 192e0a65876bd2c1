//go:build linux

package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What follows are parts of a day with the machine "one", which has nothing but busybox.

// begins starts microvm, which the test's end kills where it has not ended.
func begins(t *testing.T, prepare func(*exec.Cmd), args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "microvm", args...)
	prepare(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd
}

// types holds a conversation with a shell on a terminal.
func types(t *testing.T) {
	t.Helper()
	var in io.WriteCloser
	var out io.ReadCloser
	cmd := begins(t, func(cmd *exec.Cmd) { in, _ = cmd.StdinPipe(); out, _ = cmd.StdoutPipe() }, "exec", "-it", "one", "/bin/busybox", "sh")
	lines := bufio.NewScanner(out)
	for _, step := range []struct{ typed, answer string }{{"busybox tty", "/dev/pts/"}, {"echo $((6*7)) of $TERM", "42 of "}, {"busybox stty size", "24 80"}} {
		fmt.Fprintln(in, step.typed)
		for found := false; !found; found = strings.Contains(lines.Text(), step.answer) {
			if !lines.Scan() {
				t.Fatalf("the terminal ends before %q has an answer: %v", step.typed, lines.Err())
			}
		}
	}
	fmt.Fprintln(in, "exit 6")
	io.Copy(io.Discard, out)
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 6 {
		t.Errorf("the session ends with %v", err)
	}
}

// copiesTree copies 20 MiB in and out.
func copiesTree(t *testing.T) {
	t.Helper()
	from, back := t.TempDir(), filepath.Join(t.TempDir(), "back")
	for i := range 40 {
		dir := filepath.Join(from, fmt.Sprint("dir", i%4))
		content := make([]byte, 512<<10+i)
		rand.Read(content)
		if err := errors.Join(os.MkdirAll(dir, 0o750), os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), content, 0o640)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("dir1/1", filepath.Join(from, "link")); err != nil {
		t.Fatal(err)
	}
	expect(t, 0, "cp", from, "one:/tree")
	expect(t, 0, "cp", "one:/tree", back)
	if there, here := treeSum(t, back), treeSum(t, from); there != here {
		t.Errorf("what came back is another tree: %x, not %x", there, here)
	}
}

// treeSum is the sum of all names, modes and contents.
func treeSum(t *testing.T, root string) [sha256.Size]byte {
	t.Helper()
	hash := sha256.New()
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if path != root {
			fmt.Fprintf(hash, "%s %s\n", strings.TrimPrefix(path, root), info.Mode())
		}
		if !info.Mode().IsRegular() {
			return nil
		}
		content, err := os.ReadFile(path)
		hash.Write(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return [sha256.Size]byte(hash.Sum(nil))
}

// fetches gets a file from a web server in the guest.
func fetches(t *testing.T, want []byte) {
	t.Helper()
	expect(t, 0, "exec", "-d", "one", "/bin/busybox", "httpd", "-f", "-p", "127.0.0.1:8080", "-h", "/bin")
	var told io.ReadCloser
	cmd := begins(t, func(cmd *exec.Cmd) { told, _ = cmd.StderrPipe() }, "forward", "one", "0:8080")
	line, err := bufio.NewReader(told).ReadString('\n')
	address, _, _ := strings.Cut(line, " ")
	if err != nil {
		t.Fatalf("%q, %v", line, err)
	}
	client := &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	var response *http.Response
	for begin := time.Now(); ; time.Sleep(50 * time.Millisecond) { // the server begins to listen when it likes
		if response, err = client.Get("http://" + address + "/busybox"); err == nil || time.Since(begin) > 20*time.Second {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil || response.StatusCode != http.StatusOK || !bytes.Equal(got, want) {
		t.Errorf("%s, %d bytes of %d, %v", response.Status, len(got), len(want), err)
	}
	cmd.Process.Signal(syscall.SIGINT)
	if err := cmd.Wait(); err != nil {
		t.Errorf("an interrupted forward: %v", err)
	}
}

// losesNothing has 64 MiB said to who does not listen for a while.
func losesNothing(t *testing.T, program []byte) {
	t.Helper()
	const size = 64 << 20
	times := size/len(program) + 1
	script := fmt.Sprintf("i=0; while [ $i -lt %d ]; do busybox cat /bin/busybox; i=$((i+1)); done | busybox head -c %d", times, size)
	kept := filepath.Join(t.TempDir(), "kept")
	said, err := exec.Command("sh", "-c", `{ microvm exec one /bin/busybox sh -c "$1"; echo "status $?" >&2; } | (sleep 5; cat >"$2")`, "sh", script, kept).CombinedOutput()
	if err != nil || string(said) != "status 0\n" {
		t.Errorf("%q, %v", said, err)
	}
	got, err := os.ReadFile(kept)
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat(program, times)[:size]
	if i := firstDifference(got, want); i >= 0 {
		t.Errorf("%d bytes came of %d, and byte %d is another", len(got), len(want), i)
	}
}

// firstDifference returns where two texts differ; -1 when they do not.
func firstDifference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// runsWithVolume runs a machine with a copy of a directory, which comes back, and a variable of this process.
func runsWithVolume(t *testing.T, base string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/in", []byte("from the host\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HERE", "of this process")
	stdout, _ := expect(t, 3, "run", "--image", base, "--cpus", "1", "-m", "256m", "-e", "HERE", "-v", dir+":/srv/new/dir:out", "-w", "/srv/new/dir", "sh", "-c", "echo $HERE; cat in; nproc; echo of the guest > back; exit 3")
	if stdout != "of this process\nfrom the host\n1\n" {
		t.Errorf("it says %q", stdout)
	}
	if text, err := os.ReadFile(dir + "/back"); string(text) != "of the guest\n" || err != nil {
		t.Errorf("%q came back, %v", text, err)
	}
}
