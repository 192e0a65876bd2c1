//go:build linux

package netns

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

func closed(t *testing.T, ns *Namespace, err error) *Namespace {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return ns
}

// made is a namespace at a path of the test's own, removed at its end.
func made(t *testing.T) *Namespace {
	t.Helper()
	path := filepath.Join(t.TempDir(), "ns")
	t.Cleanup(func() {
		if err := Remove(path); err != nil {
			t.Error(err)
		}
	})
	ns, err := Make(path)
	return closed(t, ns, err)
}

// inode returns the text of a link to a namespace, which tells it.
func inode(path string) (string, error) { return os.Readlink(path) }

func (n *Namespace) inode(t *testing.T) string {
	t.Helper()
	info, err := n.file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("net:[%d]", info.Sys().(*syscall.Stat_t).Ino)
}

func TestHostMakeDoOpenRemove(t *testing.T) {
	ring.Host(t)
	here, err := inode(thread)
	if err != nil {
		t.Fatal(err)
	}
	ns := made(t)
	if ns.inode(t) == here {
		t.Fatal("it is the present one")
	}
	again, err := Open(ns.Path())
	if closed(t, again, err); again.inode(t) != ns.inode(t) || !again.Is(ns) || again.Path() != ns.Path() {
		t.Errorf("opened %s, made %s", again.inode(t), ns.inode(t))
	}
	boom := errors.New("boom")
	err = again.Do(func() error {
		there, err := inode(thread)
		if err != nil || there != ns.inode(t) {
			return fmt.Errorf("in %s: %w", there, err)
		}
		out, err := exec.Command("readlink", "/proc/self/ns/net").Output()
		if err != nil || string(out) != ns.inode(t)+"\n" {
			return fmt.Errorf("a process is in %s: %w", out, err)
		}
		links, err := net.Interfaces()
		if err != nil || len(links) != 1 {
			return fmt.Errorf("links %v: %w", links, err)
		}
		return boom
	})
	if err != boom {
		t.Error(err)
	}
	if after, err := inode(thread); err != nil || after != here {
		t.Errorf("after it in %s, %v", after, err)
	}
	err = again.Do(func() error {
		return (*Namespace)(nil).Do(func() error {
			home, err := inode(thread)
			if err != nil || home != here {
				return fmt.Errorf("in %s: %w", home, err)
			}
			return nil
		})
	})
	if err != nil {
		t.Errorf("the process's own, from another: %v", err)
	}
	if _, err := Make(ns.Path()); !errors.Is(err, fs.ErrExist) {
		t.Errorf("made twice: %v", err)
	}
	if err := errors.Join(Remove(ns.Path()), Remove(ns.Path())); err != nil {
		t.Error(err)
	}
	if _, err := Open(ns.Path()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("opened what is gone: %v", err)
	}
}

// A handle, and with it what is in it, outlives Remove; the path may have another at once.
func TestHostRemoveOfABusyNamespace(t *testing.T) {
	ring.Host(t)
	ns := made(t)
	var busy *exec.Cmd
	err := ns.Do(func() error {
		busy = exec.Command("sleep", "1000")
		return busy.Start()
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { busy.Process.Kill(); busy.Wait() }()
	if err := Remove(ns.Path()); err != nil {
		t.Fatal(err)
	}
	if there, err := inode(fmt.Sprintf("/proc/%d/ns/net", busy.Process.Pid)); err != nil || there != ns.inode(t) {
		t.Errorf("the process is in %s, %v", there, err)
	}
	next, err := Make(ns.Path())
	if closed(t, next, err); next.Is(ns) {
		t.Error("the next is the one that was removed")
	}
}

// What is mounted in a mount namespace with private copies goes with the file.
func TestHostRemoveReachesPrivateMounts(t *testing.T) {
	ring.Host(t)
	ns := made(t)
	other := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-c", `stat -f -c %T "$0"; read line; stat -f -c %T "$0" 2>&1`, ns.Path())
	in, err := other.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := other.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer other.Wait()
	defer in.Close()
	text := make([]byte, 100)
	if n, err := out.Read(text); err != nil || string(text[:n]) != "nsfs\n" {
		t.Fatalf("before: %q, %v", text[:n], err)
	}
	if err := Remove(ns.Path()); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in)
	if n, err := out.Read(text); err != nil || string(text[:n]) == "nsfs\n" {
		t.Errorf("after: %q, %v", text[:n], err)
	}
}

func TestHostStackedMountsAreRemoved(t *testing.T) {
	ring.Host(t)
	ns := made(t)
	for range 2 {
		if out, err := exec.Command("mount", "--bind", "/proc/self/ns/net", ns.Path()).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if err := Remove(ns.Path()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(ns.Path()); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// A file without a mount is what a kill between the two leaves: Open has none, Make makes one.
func TestHostFileWithoutMount(t *testing.T) {
	ring.Host(t)
	path := filepath.Join(t.TempDir(), "ns")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open: %v", err)
	}
	if names, err := List(filepath.Dir(path)); err != nil || len(names) > 0 {
		t.Errorf("list: %v, %v", names, err)
	}
	ns, err := Make(path)
	closed(t, ns, err)
	if names, err := List(filepath.Dir(path)); err != nil || !slices.Equal(names, []string{"ns"}) {
		t.Errorf("list: %v, %v", names, err)
	}
	if err := Remove(path); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Remove(path); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

func TestHostOtherThingsAreNoNamespaces(t *testing.T) {
	ring.Host(t)
	dir := t.TempDir()
	link, user := filepath.Join(dir, "link"), filepath.Join(dir, "user")
	if err := errors.Join(os.Symlink(thread, link), os.WriteFile(user, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "--bind", "/proc/self/ns/uts", user).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	defer syscall.Unmount(user, 0)
	for _, path := range []string{dir, link, user} {
		if ns, err := Open(path); err == nil {
			t.Errorf("%s was opened", path)
			ns.Close()
		}
		if ns, err := Make(path); err == nil {
			t.Errorf("%s was made one", path)
			ns.Close()
		}
		if err := Remove(path); err == nil {
			t.Errorf("%s was removed", path)
		}
	}
}

// One of many that make the same namespace at once makes it; all others are told.
func TestHostConcurrentMakes(t *testing.T) {
	ring.Host(t)
	dir := t.TempDir()
	var made [4]atomic.Int32
	var wait sync.WaitGroup
	for i := range 16 {
		wait.Go(func() {
			ns, err := Make(filepath.Join(dir, fmt.Sprint(i%4)))
			if err == nil {
				made[i%4].Add(1)
				ns.Close()
			} else if !errors.Is(err, fs.ErrExist) {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	for i := range made {
		if n := made[i].Load(); n != 1 {
			t.Errorf("%d was made %d times", i, n)
		}
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := syscall.Unmount(path, 0); err != nil {
			t.Error(err)
		}
		if here, err := mounted(path); here || err != nil {
			t.Errorf("%s: there was a second mount, or %v", path, err)
		}
	}
}

const killedEnv = "MICROVM_TEST_NETNS_KILLED"

// killed dies at once after it has made the namespace at path.
func killed(path string) {
	if _, err := Make(path); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

func TestHostNamespaceOutlivesItsMaker(t *testing.T) {
	ring.Host(t)
	path := filepath.Join(t.TempDir(), "ns")
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), killedEnv+"="+path)
	if out, err := cmd.CombinedOutput(); err == nil || len(out) > 0 {
		t.Fatalf("%v: %s", err, out)
	}
	ns, err := Open(path)
	closed(t, ns, err)
	if err := Remove(path); err != nil {
		t.Error(err)
	}
}

func threads(t *testing.T) (spaces map[string]int, all int) {
	t.Helper()
	tasks, err := filepath.Glob("/proc/self/task/*/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	spaces = map[string]int{}
	for _, task := range tasks {
		if name, err := inode(task); err == nil { // else it has ended meanwhile
			spaces[name]++
			all++
		}
	}
	return spaces, all
}

func TestHostThreadsAreNotLeaked(t *testing.T) {
	ring.Host(t)
	ns, err := New()
	closed(t, ns, err)
	_, before := threads(t)
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for range 250 {
				if err := ns.Do(func() error { return nil }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	spaces, after := threads(t)
	if spaces[ns.inode(t)] > 0 || after > before+10 {
		t.Errorf("%d threads before, %d after: %v", before, after, spaces)
	}
}

// A thread that can't go back ends; one whose function ended its goroutine goes back.
func TestHostThreadThatCantReturn(t *testing.T) {
	ring.Host(t)
	ns, err := New()
	closed(t, ns, err)
	nowhere := func() (*Namespace, error) {
		f, err := os.Open("/proc/self/ns/uts") // no network namespace: setns refuses it
		return &Namespace{file: f}, err
	}
	tid := 0
	err = from(nowhere, func() error {
		tid = syscall.Gettid()
		return ns.enter()
	})
	if err != nil || tid == 0 {
		t.Fatal(err)
	}
	gone := func() bool {
		_, err := os.Lstat(fmt.Sprintf("/proc/self/task/%d", tid))
		return errors.Is(err, fs.ErrNotExist)
	}
	for deadline := time.Now().Add(10 * time.Second); !gone() && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	if spaces, _ := threads(t); spaces[ns.inode(t)] > 0 || !gone() {
		t.Errorf("the thread is still there: %v", spaces)
	}
	if err := ns.Do(func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("no error of a function that did not return")
	}
	if spaces, _ := threads(t); spaces[ns.inode(t)] > 0 {
		t.Errorf("the thread did not go back: %v", spaces)
	}
}
