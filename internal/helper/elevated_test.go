//go:build linux

package helper_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// TestHostElevatedProgramsAreNoHelpers executes a copy of this program as a user who is not root: with bits that give it more rights it serves nobody.
func TestHostElevatedProgramsAreNoHelpers(t *testing.T) {
	ring.Host(t)
	const caller, owner = 65534, 65533
	place, err := os.MkdirTemp("", "microvm-elevated-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(place) })
	program := filepath.Join(place, "program")
	copyProgram(t, program)
	for _, test := range []struct {
		mode    os.FileMode
		refuses bool
	}{{0o755, false}, {0o755 | os.ModeSetuid, true}, {0o755 | os.ModeSetgid, true}, {0o755, false}} {
		dir, err := os.MkdirTemp(place, "dir-")
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range []error{os.Chmod(place, 0o755), os.Chmod(dir, 0o777), os.Chown(program, owner, owner), os.Chmod(program, test.mode)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command(program)
		cmd.Env = []string{fmt.Sprintf(`MICROVM_HELPER={"protocol":1,"kind":"quiet","version":"1","dir":%q,"config":"ZmFpbA==","timeout":10000000000}`, dir)} // "fail": it ends at once
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: caller, Gid: caller}}
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &said, io.Discard
		if err := cmd.Run(); cmd.ProcessState == nil {
			t.Fatal(err)
		}
		served := exists(filepath.Join(dir, "began"))
		if served == test.refuses || strings.Contains(said.String(), "set-user-ID") != test.refuses {
			t.Errorf("mode %v: served %t, said %s", test.mode, served, &said)
		}
	}
}

func copyProgram(t *testing.T, to string) {
	t.Helper()
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	file, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(file, from)
	if closed := file.Close(); err != nil || closed != nil {
		t.Fatal(err, closed)
	}
}
