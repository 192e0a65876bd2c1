//go:build linux

package state

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	microvm "github.com/tangle-network/microvm-runtime"
)

func open(root string, layout Layout) (*Dir, error) {
	d, err := Open(root, layout)
	if err == nil {
		err = d.FixLayout()
	}
	return d, err
}

// TestLayout: who comes with other options is told which, both values, and what to do, and nothing is made for him. Once the last machine is gone he may have them, and the others may not.
func TestLayout(t *testing.T) {
	root := t.TempDir()
	was := Layout{SocketDir: filepath.Join(root, "run"), JailDir: filepath.Join(root, "jails"), Slice: "/a.slice", FirstUID: 64000}
	for field, edit := range map[string]func(*Layout) (from, to any){
		"SocketDir": func(l *Layout) (any, any) {
			l.SocketDir += "-other"
			return was.SocketDir, l.SocketDir
		},
		"JailDir": func(l *Layout) (any, any) {
			l.JailDir += "-other"
			return was.JailDir, l.JailDir
		},
		"Slice": func(l *Layout) (any, any) {
			l.Slice = "/b.slice"
			return was.Slice, l.Slice
		},
		"FirstUID": func(l *Layout) (any, any) {
			l.FirstUID++
			return was.FirstUID, l.FirstUID
		},
	} {
		t.Run(field, func(t *testing.T) {
			dir := filepath.Join(root, field)
			is := was
			is.SocketDir += field
			now := is
			from, to := edit(&now)
			if field == "SocketDir" {
				from = is.SocketDir
				to = now.SocketDir
			}
			d, err := open(dir, is)
			if err != nil {
				t.Fatal(err)
			}
			lock := newMachine(t, d, "one")
			_, err = open(dir, now)
			if !errors.Is(err, microvm.ErrInvalid) {
				t.Errorf("other: %v, want ErrInvalid", err)
			}
			for _, words := range []any{"Options." + field, from, to, filepath.Join(dir, "layout.json"), "MICROVM_"} {
				if !strings.Contains(fmt.Sprint(err), fmt.Sprint(words)) {
					t.Errorf("%v does not say %v", err, words)
				}
			}
			if _, err := os.Lstat(now.SocketDir); field == "SocketDir" && !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a socket directory was made: %v", err)
			}
			if _, err := open(dir, is); err != nil {
				t.Errorf("the same: %v", err)
			}
			if err := errors.Join(lock.Unbind(), lock.Remove()); err != nil {
				t.Fatal(err)
			}
			other, err := open(dir, now)
			if err != nil {
				t.Errorf("other, without machines: %v", err)
			}
			uid := NewUID()
			if lock, err := d.Create(t.Context(), uid); !errors.Is(err, microvm.ErrInvalid) {
				t.Errorf("create of who has the old one: %+v, %v", lock, err)
			}
			if lock, err := other.Create(t.Context(), uid); err != nil {
				t.Error(err)
			} else {
				lock.Unlock()
			}
			if _, err := d.Lock(t.Context(), uid); !errors.Is(err, microvm.ErrInvalid) {
				t.Errorf("lock of who has the old one: %v", err)
			}
		})
	}
}

// TestLayoutOfBefore: a directory from before it was written down gets it.
func TestLayoutOfBefore(t *testing.T) {
	d := newDir(t)
	newMachine(t, d, "one")
	if err := d.FixLayout(); err != nil {
		t.Fatal(err)
	}
	if _, err := open(d.root, d.layout); err != nil {
		t.Error(err)
	}
	other := d.layout
	other.Slice = "/other.slice"
	if _, err := open(d.root, other); !errors.Is(err, microvm.ErrInvalid) {
		t.Errorf("other: %v, want ErrInvalid", err)
	}
}

// TestDamagedLayout is not taken for one that fits.
func TestDamagedLayout(t *testing.T) {
	d := newDir(t)
	if err := d.FixLayout(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(d.root, "layout.json")
	for _, tc := range []struct {
		spoil func(path string) error
		want  error
	}{
		{edit(`"first_uid":0`, `"first_uid":1`), ErrDamaged},
		{edit(`"version":1`, `"version":2`), microvm.ErrIncompatible},
		{func(path string) error { return os.Truncate(path, 0) }, ErrDamaged},
	} {
		whole := content(path)
		if err := tc.spoil(path); err != nil {
			t.Fatal(err)
		}
		if _, err := open(d.root, d.layout); !errors.Is(err, tc.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%v, want %v", err, tc.want)
		}
		if err := os.WriteFile(path, []byte(whole), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := open(d.root, d.layout); err != nil {
		t.Error(err)
	}
}

// TestTwoLayoutsAtOnce: of many that bring layouts of their own and make machines, all that succeed have the same.
func TestTwoLayoutsAtOnce(t *testing.T) {
	for range 20 {
		root := t.TempDir()
		var all sync.WaitGroup
		var mu sync.Mutex
		made := map[string]int{}
		for n := range 8 {
			all.Go(func() {
				layout := Layout{SocketDir: filepath.Join(root, "run"), Slice: fmt.Sprintf("/%d.slice", n%2)}
				for range 5 {
					d, err := open(filepath.Join(root, "state"), layout)
					if err != nil {
						if !errors.Is(err, microvm.ErrInvalid) {
							t.Error(err)
						}
						continue
					}
					lock, err := d.Create(t.Context(), NewUID())
					if err != nil {
						if !errors.Is(err, microvm.ErrInvalid) {
							t.Error(err)
						}
						continue
					}
					lock.Unlock()
					mu.Lock()
					made[layout.Slice]++
					mu.Unlock()
				}
			})
		}
		all.Wait()
		if len(made) != 1 {
			t.Fatalf("machines were made under %v", made)
		}
	}
}
