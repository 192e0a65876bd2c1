//go:build linux

package image_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// ext4 is an image as e2fsprogs see it, whose reading of the format is not ours.
type ext4 struct {
	t    *testing.T
	path string
}

// open checks an image with e2fsck.
func open(t *testing.T, path string) ext4 {
	t.Helper()
	if out, err := exec.Command(program("e2fsck"), "-fn", path).CombinedOutput(); err != nil {
		t.Fatalf("e2fsck: %v: %s", err, out)
	}
	return ext4{t, path}
}

// program finds a program of administrators, which is not on everybody's PATH.
func program(name string) string {
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return filepath.Join(dir, name)
		}
	}
	return name
}

func (e ext4) debugfs(request string) string {
	e.t.Helper()
	cmd := exec.Command(program("debugfs"), "-R", request, e.path)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC", "DEBUGFS_PAGER=__none__")
	out, err := cmd.Output()
	if err != nil {
		e.t.Fatalf("debugfs %s: %v", request, err)
	}
	return string(out)
}

// stat returns what there is to say of a file, with one space between words; "" when it is not there.
func (e ext4) stat(name string) string {
	return strings.Join(strings.Fields(e.debugfs(`stat "`+name+`"`)), " ")
}

func (e ext4) content(name string) string { return e.debugfs(`cat "` + name + `"`) }

// has fails the test when what stat says of a file lacks words.
func (e ext4) has(name string, words ...string) {
	e.t.Helper()
	stat := e.stat(name)
	for _, word := range words {
		if !strings.Contains(stat+" ", word+" ") {
			e.t.Errorf("%s: %s\nlacks %q", name, stat, word)
		}
	}
}
