//go:build linux

package jail

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestOpenFileTakesOnlyWhatTheVMMShouldLeave(t *testing.T) {
	me := os.Geteuid()
	for name, c := range map[string]struct {
		open string
		make func(dir, secret string) error
		ok   bool
	}{
		"regular":         {"f", func(dir, _ string) error { return os.WriteFile(dir+"/f", []byte("good"), 0o600) }, true},
		"symbolic link":   {"f", func(dir, secret string) error { return os.Symlink(secret, dir+"/f") }, false},
		"hard link":       {"f", func(dir, secret string) error { return os.Link(secret, dir+"/f") }, false},
		"FIFO":            {"f", func(dir, _ string) error { return syscall.Mkfifo(dir+"/f", 0o600) }, false},
		"directory":       {"f", func(dir, _ string) error { return os.Mkdir(dir+"/f", 0o700) }, false},
		"linked parent":   {"d/secret", func(dir, secret string) error { return os.Symlink(filepath.Dir(secret), dir+"/d") }, false},
		"dots out of it":  {"../out/secret", func(string, string) error { return nil }, false},
		"absolute secret": {"/proc/self/environ", func(string, string) error { return nil }, false},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			dir, secret := top+"/jail", top+"/out/secret"
			err := errors.Join(os.Mkdir(dir, 0o700), os.Mkdir(top+"/out", 0o700), os.WriteFile(secret, []byte("secret"), 0o600), c.make(dir, secret))
			if err != nil {
				t.Fatal(err)
			}
			f, err := OpenFile(dir, c.open, me)
			if !c.ok {
				if !errors.Is(err, ErrHostile) {
					t.Errorf("%v, want ErrHostile", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if text, err := io.ReadAll(f); err != nil || string(text) != "good" {
				t.Errorf("%q, %v", text, err)
			}
			if _, err := OpenFile(dir, c.open, me+1); !errors.Is(err, ErrHostile) {
				t.Errorf("another's file: %v", err)
			}
		})
	}
}

func TestDialTakesOnlyTheVMMsOwnSocket(t *testing.T) {
	me, top := os.Geteuid(), t.TempDir()
	dir, out := top+"/jail", top+"/out"
	if err := errors.Join(os.Mkdir(dir, 0o700), os.Mkdir(out, 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, out} {
		listener, err := net.Listen("unix", path+"/s")
		if err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
	}
	if err := errors.Join(os.Symlink(out+"/s", dir+"/link"), os.Symlink(out, dir+"/d"), os.WriteFile(dir+"/f", nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"link", "d/s", "../out/s", "f"} {
		if conn, err := Dial(t.Context(), dir, name, me); !errors.Is(err, ErrHostile) {
			t.Errorf("%s: %v, %v; want ErrHostile", name, conn, err)
		}
	}
	if _, err := Dial(t.Context(), dir, "s", me+1); !errors.Is(err, ErrHostile) {
		t.Errorf("another's socket: %v", err)
	}
	conn, err := Dial(t.Context(), dir, "s", me)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestBuildIsAlwaysFresh(t *testing.T) {
	top := t.TempDir()
	shared, outside := top+"/kernel", top+"/outside"
	err := errors.Join(os.WriteFile(shared, []byte("kernel"), 0o444), os.Mkdir(outside, 0o700), os.WriteFile(outside+"/kept", nil, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	l := Layout{Base: top + "/jail", Exec: "/opt/firecracker", ID: "vm1"}
	files := Files{Shared: map[string]string{"kernel": shared}, Config: []byte("{}"), Log: "vmm.log", UID: os.Geteuid(), GID: os.Getegid()}
	if err := l.Build(t.Context(), files); err != nil {
		t.Fatal(err)
	}
	// What a VMM that broke out may leave: the binary's name leads to a shared file, or out.
	err = errors.Join(os.Link(l.Root()+"/img/kernel", l.Root()+"/firecracker"), os.Symlink(outside, l.Root()+"/dev"))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Build(t.Context(), files); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(l.Root())
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.Name() != "img" && entry.Name() != "vmm.log" {
			t.Errorf("%s outlived a new start", entry.Name())
		}
	}
	if err := l.Remove(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(outside + "/kept"); err != nil {
		t.Errorf("removal followed a link: %v", err)
	}
	if text, err := os.ReadFile(shared); err != nil || string(text) != "kernel" {
		t.Errorf("shared file: %q, %v", text, err)
	}
}
