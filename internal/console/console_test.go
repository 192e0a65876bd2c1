//go:build linux

package console

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// guest is what a VMM's standard output is to a console.
type guest struct {
	t   *testing.T
	dir string
	out *os.File
	all bytes.Buffer // what was written
}

func newGuest(t *testing.T) *guest {
	t.Helper()
	dir := t.TempDir()
	out, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	g := &guest{t: t, dir: dir, out: out}
	t.Cleanup(func() { out.Close() })
	return g
}

// write writes numbered lines until so many bytes are written.
func (g *guest) write(size int) {
	g.t.Helper()
	for end := g.all.Len() + size; g.all.Len() < end; {
		line := fmt.Sprintf("line at %d\n", g.all.Len())
		if _, err := io.WriteString(g.out, line); err != nil {
			g.t.Error(err)
			return
		}
		g.all.WriteString(line)
	}
}

// drain drains in the background; what it returns ends that and waits.
func (g *guest) drain() (stop func()) {
	ctx, cancel := context.WithCancel(g.t.Context())
	done := make(chan error)
	go func() { done <- Drain(ctx, g.dir, nil) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			g.t.Error(err)
		}
	}
}

// end is the VMM's end: all is drained.
func (g *guest) end() {
	g.t.Helper()
	in, err := os.OpenFile(fifo(g.dir), os.O_RDONLY|syscall.O_NONBLOCK, 0) // as a drainer's; with the last holder the FIFO loses what is in it
	if err != nil {
		g.t.Fatal(err)
	}
	defer in.Close()
	if err := g.out.Close(); err != nil {
		g.t.Error(err)
	}
	if err := Drain(g.t.Context(), g.dir, nil); err != nil {
		g.t.Error(err)
	}
}

func (g *guest) read(o ReadOptions) string {
	g.t.Helper()
	r, err := Open(g.t.Context(), g.dir, o)
	if err != nil {
		g.t.Fatal(err)
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		g.t.Error(err)
	}
	return string(text)
}

// TestFlood: a guest writes much more than is kept; what is kept is the newest, whole, and bounded.
func TestFlood(t *testing.T) {
	g := newGuest(t)
	stop := g.drain()
	g.write(5 << 20)
	stop()
	g.end()
	text := g.read(ReadOptions{})
	if len(text) < half || len(text) > 2*half+128<<10 {
		t.Errorf("%d bytes are kept", len(text))
	}
	if !strings.HasSuffix(g.all.String(), text) {
		t.Errorf("what is kept is not the end of what was written: %q…", text[:min(len(text), 100)])
	}
	for _, tail := range []int{1, 100, half, half + 1000, len(text), len(text) + 1} {
		if got, want := g.read(ReadOptions{Tail: tail}), text[max(0, len(text)-tail):]; got != want {
			t.Errorf("the last %d bytes: %d bytes, beginning %q", tail, len(got), got[:min(len(got), 40)])
		}
	}
}

// TestLeavingDrainerLosesNothing: who stops draining has moved what was there, also when the guest ends at the same time and another drained until then.
func TestLeavingDrainerLosesNothing(t *testing.T) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	for name, leave := range map[string]func(g *guest) error{
		"at once": func(g *guest) error { return Drain(over, g.dir, nil) },
		"while it waits for another": func(g *guest) error {
			before, err := hold(t.Context(), g.dir, nil)
			if err != nil {
				return err
			}
			ctx, cancel := context.WithCancel(t.Context())
			left := make(chan error)
			go func() { left <- Drain(ctx, g.dir, nil) }()
			for begin := time.Now(); holders(t, fifo(g.dir)) < 2; time.Sleep(time.Millisecond) {
				if time.Since(begin) > 10*time.Second {
					t.Error("who waits does not hold the FIFO")
					break
				}
			}
			g.out.Close()
			before.Close()
			cancel()
			return <-left
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGuest(t)
			g.write(100 << 10)
			if err := leave(g); err != nil {
				t.Fatal(err)
			}
			g.out.Close()
			if text := g.read(ReadOptions{}); text != g.all.String() {
				t.Errorf("%d bytes of %d are kept", len(text), g.all.Len())
			}
		})
	}
}

// holders counts this process's descriptors of a file.
func holders(t *testing.T, path string) (n int) {
	t.Helper()
	links, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == path {
			n++
		}
	}
	return n
}

// TestFollow: a reader that keeps up misses nothing, over several rotations, and ends with the run.
func TestFollow(t *testing.T) {
	g := newGuest(t)
	defer g.drain()()
	ended := make(chan struct{})
	r, err := Open(t.Context(), g.dir, ReadOptions{Ended: ended})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got bytes.Buffer
	for range 40 {
		g.write(64 << 10)
		if _, err := io.CopyN(&got, r, int64(g.all.Len()-got.Len())); err != nil {
			t.Fatal(err)
		}
	}
	close(ended)
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		t.Errorf("after the end: %q, %v", rest, err)
	}
	if !bytes.Equal(got.Bytes(), g.all.Bytes()) {
		t.Error("it read something else than was written")
	}
}

// TestNobodyDrains: the FIFO keeps the first bytes, the rest is lost, and the place is marked.
func TestNobodyDrains(t *testing.T) {
	g := newGuest(t)
	vmm, err := os.OpenFile(fifo(g.dir), os.O_RDWR|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer vmm.Close()
	fd := int(vmm.Fd())
	kept := 0
	for line := []byte(strings.Repeat("x", 63) + "\n"); ; kept += len(line) {
		if err := syscall.SetNonblock(fd, true); err != nil { // as Firecracker does
			t.Fatal(err)
		}
		if _, err := syscall.Write(fd, line); errors.Is(err, syscall.EAGAIN) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if kept < 64<<10 {
		t.Errorf("only %d bytes are kept", kept)
	}
	done := make(chan error)
	go func() { done <- Drain(t.Context(), g.dir, nil) }()
	g.write(1000)
	if err := errors.Join(vmm.Close(), g.out.Close(), <-done); err != nil {
		t.Fatal(err)
	}
	text := g.read(ReadOptions{})
	before, after, _ := strings.Cut(text, lost)
	if strings.Count(text, lost) != 1 || !strings.HasSuffix(before, "xx\n") {
		t.Fatalf("%d marks in %d bytes", strings.Count(text, lost), len(text))
	}
	if after != g.all.String() {
		t.Errorf("after the mark: %d bytes, beginning %q", len(after), after[:min(len(after), 50)])
	}
}

// TestTakeOver: one drains at a time, and the next goes on where it stopped.
func TestTakeOver(t *testing.T) {
	g := newGuest(t)
	first := g.drain()
	g.write(200 << 10)
	second := g.drain()
	g.write(200 << 10)
	first()
	g.write(200 << 10)
	third := g.drain()
	second()
	g.write(200 << 10)
	third()
	g.end()
	if text := g.read(ReadOptions{}); text != g.all.String() {
		t.Errorf("%d bytes are kept of %d, or not in order", len(text), g.all.Len())
	}
}

// TestCreateBeginsAnew, and follows no link.
func TestCreateBeginsAnew(t *testing.T) {
	g := newGuest(t)
	g.write(1000)
	g.end()
	precious := filepath.Join(t.TempDir(), "precious")
	if err := errors.Join(os.WriteFile(precious, []byte("precious"), 0o600), os.Symlink(precious, old(g.dir))); err != nil {
		t.Fatal(err)
	}
	out, err := Create(g.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if text := g.read(ReadOptions{}); text != "" {
		t.Errorf("left of the run before: %q", text)
	}
	if text, err := os.ReadFile(precious); err != nil || string(text) != "precious" {
		t.Errorf("a link was followed: %q, %v", text, err)
	}
}

// TestReaderIsInterrupted by its context and by Close.
func TestReaderIsInterrupted(t *testing.T) {
	g := newGuest(t)
	ctx, cancel := context.WithCancel(t.Context())
	r, err := Open(ctx, g.dir, ReadOptions{Ended: make(chan struct{})})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	done := make(chan error)
	go func() {
		_, err := io.ReadAll(r)
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("read: %v", err)
	}
	closed, err := Open(t.Context(), g.dir, ReadOptions{Ended: make(chan struct{})})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := io.ReadAll(closed)
		done <- err
	}()
	closed.Close()
	if err := <-done; !errors.Is(err, os.ErrClosed) {
		t.Errorf("read after close: %v", err)
	}
}
