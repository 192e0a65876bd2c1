//go:build linux

package agent

import (
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/wire"
)

func TestEnvironmentIsTheDefaultsWithTheRequestsOverThem(t *testing.T) {
	who := &user.User{Username: "ann", HomeDir: "/home/ann"}
	defaults := []string{"PATH=" + defaultPath, "HOME=/home/ann", "USER=ann", "LOGNAME=ann", "TERM=dumb"}
	for _, tc := range []struct {
		name      string
		own, want []string
	}{
		{"nothing", nil, defaults},
		{"another", []string{"A=b"}, append(slices.Clone(defaults), "A=b")},
		{"over a default", []string{"HOME=/x"}, []string{defaults[0], "HOME=/x", defaults[2], defaults[3], defaults[4]}},
		{"an empty value", []string{"TERM="}, append(slices.Clone(defaults[:4]), "TERM=")},
		{"twice: the last holds", []string{"A=1", "A=2", "PATH=/a", "PATH=/b"}, append([]string{"PATH=/b"}, append(slices.Clone(defaults[1:]), "A=2")...)},
		{"the beginning of a name", []string{"HOM=x", "HOMER=y"}, append(slices.Clone(defaults), "HOM=x", "HOMER=y")},
		{"a value with equals signs", []string{"A=b=c="}, append(slices.Clone(defaults), "A=b=c=")},
		{"no pairs", []string{"A", "", "=x"}, defaults},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := environment(who, false, tc.own); !slices.Equal(got, tc.want) {
				t.Errorf("%q, want %q", got, tc.want)
			}
		})
	}
}

func TestEnvironmentOfATerminal(t *testing.T) {
	who := &user.User{}
	if got := environment(who, true, nil); !slices.Contains(got, "TERM=xterm") {
		t.Errorf("%q", got)
	}
	if got := environment(who, true, []string{"TERM=linux"}); !slices.Contains(got, "TERM=linux") || slices.Contains(got, "TERM=xterm") {
		t.Errorf("%q", got)
	}
}

// executable makes a program in a directory that is made too.
func executable(t *testing.T, mode os.FileMode, parts ...string) {
	t.Helper()
	path := filepath.Join(parts...)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, mode)); err != nil {
		t.Fatal(err)
	}
}

func TestLookPath(t *testing.T) {
	dir := t.TempDir()
	executable(t, 0o755, dir, "a", "one")
	executable(t, 0o755, dir, "b", "one")
	executable(t, 0o755, dir, "b", "two")
	executable(t, 0o644, dir, "a", "two") // not executable
	executable(t, 0o755, dir, "a", "three", "x")
	executable(t, 0o755, dir, "b", "three")
	path := "PATH=" + dir + "/a:" + dir + "/b"
	for _, tc := range []struct{ name, env, want string }{
		{"one", path, dir + "/a/one"},
		{"two", path, dir + "/b/two"},
		{"three", path, dir + "/b/three"}, // a directory is no program
		{"four", path, ""},
		{"one", "PATH=", ""},
		{"one", "PATH", ""},
		{"one", "XPATH=" + dir, ""},
		{"one", "PATH=a", dir + "/a/one"}, // below the directory that it will be in
		{"a/one", path, dir + "/a/one"},
		{"./b/two", "", dir + "/b/two"},
		{"../x", path, filepath.Dir(dir) + "/x"},
		{"/no/such", path, "/no/such"}, // the system says so
	} {
		got, err := lookPath(tc.name, dir, []string{"A=b", tc.env})
		if got != tc.want || (err != nil) != (tc.want == "") {
			t.Errorf("%s in %s: %q, %v; want %q", tc.name, tc.env, got, err, tc.want)
		}
		if refused := (*requestError)(nil); err != nil && (!errors.As(err, &refused) || refused.code != wire.CodeNotFound) {
			t.Errorf("%s in %s: %v", tc.name, tc.env, err)
		}
	}
	if got, err := lookPath("one", dir+"/a", []string{"PATH=/no/such:"}); err != nil || got != dir+"/a/one" {
		t.Errorf("an empty place is the directory: %q, %v", got, err)
	}
}

func TestIdentity(t *testing.T) {
	for _, tc := range []struct {
		text, home string
		uid, gid   uint32
	}{
		{"root", "/root", 0, 0}, {"0", "/root", 0, 0}, {"nobody", "/nonexistent", 65534, 65534}, {"65534", "/nonexistent", 65534, 65534},
		{"54321", "/", 54321, 54321}, {"nobody:0", "/nonexistent", 65534, 0}, {"nobody:root", "/nonexistent", 65534, 0}, {"54321:7", "/", 54321, 7},
		{"4294967295", "/", 1<<32 - 1, 1<<32 - 1},
	} {
		who, credential, err := identity(tc.text)
		if err != nil || credential == nil || credential.Uid != tc.uid || credential.Gid != tc.gid || who.HomeDir != tc.home {
			t.Errorf("%q: %+v, %+v, %v; want %+v", tc.text, who, credential, err, tc)
		}
	}
	for _, text := range []string{"no-such-user", "-1", "4294967296", "0x0", "root:no-such-group", "root:-1", ":no-such-group", "root:0:0", " root", "root:"} {
		_, _, err := identity(text)
		if refused := (*requestError)(nil); !errors.As(err, &refused) || refused.code != wire.CodeNotFound || !strings.Contains(err.Error(), "not known") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, credential, err := identity(""); err != nil || credential != nil {
		t.Errorf("nobody in particular: %+v, %v", credential, err)
	}
}

func TestHostUserAndGroupOfACommand(t *testing.T) {
	ring.Host(t)
	h := newHost(t, Options{})
	for user, want := range map[string]string{"": "0:0:0", "nobody": "65534:65534:65534", "54321": "54321:54321:54321", "54321:7": "54321:7:7", ":7": "0:7:7"} {
		s := h.exec(wire.Exec{ID: "a", User: user, Dir: "/", Argv: []string{"sh", "-c", `echo "$(id -u):$(id -g):$(id -G | cut -d' ' -f1)"`}})
		if got := s.output(len(want)); got != want+"\n" {
			t.Errorf("user %q is %q, want %q", user, got, want)
		}
		s.exit()
		s.sendFrame(wire.Done, "")
		if !until(func() bool { return h.process("a") == nil }) {
			t.Fatal("it is not forgotten")
		}
	}
}
