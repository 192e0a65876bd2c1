//go:build linux

package firecracker

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/testing/fakevmm"
)

// lineRig is a machine on a fake VMM, which keeps connections open at a snapshot as the real one does, and another process that works on it.
type lineRig struct {
	*rig
	vm, others *microvm.VM
	other      *driver
}

func newLineRig(t *testing.T) *lineRig {
	t.Helper()
	r := &lineRig{rig: rigOf(t, fakeOptions(t, fakevmm.Faults{}))}
	r.vm = r.create("one")
	r.start(r.vm)
	other, err := open(r.options)
	if err != nil {
		t.Fatal(err)
	}
	rt := microvm.New(other)
	t.Cleanup(func() { rt.Close() })
	if r.others, err = rt.VM(t.Context(), "one"); err != nil {
		t.Fatal(err)
	}
	r.other = other
	return r
}

// dialed is a connection that works.
func dialed(t *testing.T, vm *microvm.VM) net.Conn {
	t.Helper()
	conn, err := vm.Dial(t.Context(), fakevmm.EchoPort)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := works(conn); err != nil {
		t.Fatal(err)
	}
	return conn
}

func works(conn net.Conn) error {
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, "hello"); err != nil {
		return err
	}
	_, err := io.ReadFull(conn, make([]byte, 5))
	return err
}

// endsNow fails the test unless a connection ends.
func endsNow(t *testing.T, conn net.Conn, whose string) {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("a connection of %s: %v, want its end", whose, err)
	}
}

// TestSnapshotEndsConnections of all processes, whose VMM says nothing of it, and those to a machine that stands; none that is made afterwards.
func TestSnapshotEndsConnections(t *testing.T) {
	for name, paused := range map[string]bool{"running": false, "paused": true} {
		t.Run(name, func(t *testing.T) {
			r := newLineRig(t)
			for _, snapshot := range []string{"first", "second"} {
				own, others := dialed(t, r.vm), dialed(t, r.others)
				if paused {
					if err := r.vm.Pause(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				for _, conn := range []net.Conn{own, others} { // what else is written down ends none
					if err := works(conn); err != nil {
						t.Fatal(err)
					}
				}
				r.snapshot(r.vm, snapshot, nil)
				endsNow(t, own, "this process")
				endsNow(t, others, "another process")
				if paused {
					if err := r.vm.Resume(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
			}
			own, others := dialed(t, r.vm), dialed(t, r.others)
			r.snapshot(r.others, "third", nil)
			endsNow(t, own, "this process")
			endsNow(t, others, "another process")
		})
	}
}

// TestSnapshotThatFailsEndsConnections: the guest lost them when the VMM wrote it down, whatever became of that.
func TestSnapshotThatFailsEndsConnections(t *testing.T) {
	r := newLineRig(t)
	own, others := dialed(t, r.vm), dialed(t, r.others)
	r.failAt("snapshot/create:after", errInjected)
	if _, err := r.vm.Snapshot(t.Context(), "warm", nil); !errors.Is(err, errInjected) {
		t.Fatal(err)
	}
	endsNow(t, own, "this process")
	endsNow(t, others, "another process")
}

// TestInterruptedSnapshotEndsConnections, as soon as somebody lets the machine go on.
func TestInterruptedSnapshotEndsConnections(t *testing.T) {
	r := newLineRig(t)
	own, others := dialed(t, r.vm), dialed(t, r.others)
	r.leaveTaking(r.vm, "")
	if _, err := r.runtime.Recover(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	endsNow(t, own, "this process")
	endsNow(t, others, "another process")
	if err := works(dialed(t, r.others)); err != nil {
		t.Error(err)
	}
}

// TestConnectionOfANewRun is not taken for one of the run before, which had more snapshots.
func TestConnectionOfANewRun(t *testing.T) {
	r := newLineRig(t)
	kept := dialed(t, r.others)
	r.snapshot(r.vm, "first", nil)
	endsNow(t, kept, "another process")
	if _, err := r.vm.Stop(t.Context(), &microvm.StopOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	r.start(r.vm)
	conn := dialed(t, r.others)
	if err := r.vm.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := r.vm.Resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := works(conn); err != nil {
		t.Error(err)
	}
	r.snapshot(r.vm, "second", nil)
	endsNow(t, conn, "another process")
}

// TestLinesAreForgotten: who has no connection with a machine follows it no more.
func TestLinesAreForgotten(t *testing.T) {
	r := newLineRig(t)
	conns := []net.Conn{dialed(t, r.others), dialed(t, r.others)}
	if _, err := r.others.Dial(t.Context(), fakevmm.EchoPort+1); err == nil {
		t.Error("somebody listens there")
	}
	for i, conn := range conns {
		if len(r.other.lines.of) != 1 {
			t.Errorf("with %d connections it follows %d machines", len(conns)-i, len(r.other.lines.of))
		}
		conn.Close()
		if err := conn.Close(); !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrClosed) {
			t.Errorf("closed again: %v", err)
		}
	}
	if len(r.other.lines.of) != 0 {
		t.Errorf("without any it follows %d machines", len(r.other.lines.of))
	}
}
