//go:build linux

package state

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
)

// TestOpenTakesNoOtherDirectory: one that holds what is not ours is refused and stays as it is. When it is empty, or has only what is nobody's, it is taken, and others may go on reading it.
func TestOpenTakesNoOtherDirectory(t *testing.T) {
	for _, which := range []string{"state", "run"} {
		for name, tc := range map[string]struct {
			entries []string // One that ends with a slash is a directory.
			taken   bool
		}{
			"a file":              {[]string{"precious"}, false},
			"a hidden file":       {[]string{".bashrc"}, false},
			"a directory":         {[]string{"precious/"}, false},
			"a uid's name":        {[]string{"applications/"}, false},
			"nothing":             {nil, true},
			"a new file system":   {[]string{"lost+found/"}, true},
			"a claim interrupted": {[]string{map[string]string{"state": "version.new", "run": "owner.json.new"}[which]}, true},
		} {
			t.Run(which+" "+name, func(t *testing.T) {
				root := t.TempDir()
				dir := filepath.Join(root, which)
				errs := []error{os.Mkdir(dir, 0o755), os.Chmod(dir, 0o755)}
				for _, entry := range tc.entries {
					if path := filepath.Join(dir, entry); strings.HasSuffix(entry, "/") {
						errs = append(errs, os.Mkdir(path, 0o755))
					} else {
						errs = append(errs, os.WriteFile(path, nil, 0o600))
					}
				}
				if err := errors.Join(errs...); err != nil {
					t.Fatal(err)
				}
				before := tree(t, dir)
				for range 2 {
					_, err := Open(filepath.Join(root, "state"), Layout{SocketDir: filepath.Join(root, "run")})
					if tc.taken && err != nil || !tc.taken && (!errors.Is(err, microvm.ErrInvalid) || !strings.Contains(err.Error(), dir)) {
						t.Errorf("open: %v; want it taken: %t", err, tc.taken)
					}
				}
				if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o755 {
					t.Errorf("its mode is %v, %v", info.Mode(), err)
				}
				if after := tree(t, dir); !tc.taken && !reflect.DeepEqual(before, after) {
					t.Errorf("it was changed: %v, before %v", after, before)
				}
			})
		}
	}
}

// TestForeignVersionFile: a file of that name that others write too makes no directory ours.
func TestForeignVersionFile(t *testing.T) {
	for text, taken := range map[string]bool{"1.2.3\n": false, "": false, "0\n": false, "1\n": true, "1": true} {
		root := t.TempDir()
		dir := filepath.Join(root, "state")
		if err := errors.Join(os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "version"), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, Layout{SocketDir: filepath.Join(root, "run")}); taken && err != nil || !taken && !errors.Is(err, microvm.ErrInvalid) {
			t.Errorf("version %q: %v, want it taken: %t", text, err, taken)
		}
	}
}

// TestSocketsBelongToOneState: each state directory has a socket directory of its own, whatever it is called.
func TestSocketsBelongToOneState(t *testing.T) {
	root := t.TempDir()
	one, run := filepath.Join(root, "one"), filepath.Join(root, "run")
	if _, err := Open(one, Layout{SocketDir: run}); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(filepath.Join(root, "two"), Layout{SocketDir: run}); !errors.Is(err, microvm.ErrInvalid) || !strings.Contains(err.Error(), one) {
		t.Errorf("another's: %v, want ErrInvalid that names %s", err, one)
	}
	if err := os.Symlink(root, root+"-link"); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(root + "-link")
	if _, err := Open(filepath.Join(root+"-link", "one"), Layout{SocketDir: filepath.Join(root+"-link", "run")}); err != nil {
		t.Errorf("by other names: %v", err)
	}
}

// TestSocketsWithoutMarker: the program before had none, and machines of it may run.
func TestSocketsWithoutMarker(t *testing.T) {
	d := newDir(t)
	lock := newMachine(t, d, "one")
	if err := errors.Join(os.Mkdir(d.Sockets(lock.UID()), 0o700), os.Remove(filepath.Join(d.sockets, ownerFile))); err != nil {
		t.Fatal(err)
	}
	again, err := Open(d.root, d.layout)
	if err != nil {
		t.Fatal(err)
	}
	if run, err := again.ReadRun(lock.UID()); err != nil || run == nil {
		t.Errorf("its run: %+v, %v", run, err)
	}
}

// TestOpenAtOnce: of many that make the directories none finds them half made.
func TestOpenAtOnce(t *testing.T) {
	for range 10 {
		root := t.TempDir()
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				if _, err := Open(filepath.Join(root, "state"), Layout{SocketDir: filepath.Join(root, "run")}); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
	}
}
