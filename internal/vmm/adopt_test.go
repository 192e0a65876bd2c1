//go:build linux

package vmm

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// TestAdoptedChildIsReaped: who opens the runtime again in one program adopts children of its own.
func TestAdoptedChildIsReaped(t *testing.T) {
	p := start(t, "exec sleep 1000")
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	adopted, err := Open(p.Identity())
	if err != nil {
		t.Fatal(err)
	}
	if err := adopted.Kill(); err != nil {
		t.Fatal(err)
	}
	if status, err := adopted.Wait(t.Context()); err != nil || status != (Status{Known: true, Signal: 9}) {
		t.Errorf("status %+v, %v", status, err)
	}
	if err := adopted.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(p.Identity()); !errors.Is(err, ErrGone) {
		t.Errorf("open: %v, want that it is gone: a zombie stays", err)
	}
}

// TestZombieHasEnded: where nobody reaps, one that has ended must not pass for one that runs, not for a moment.
func TestZombieHasEnded(t *testing.T) {
	process, err := os.StartProcess("/bin/sleep", []string{"sleep", "1000"}, &os.ProcAttr{})
	if err != nil {
		t.Fatal(err)
	}
	defer process.Release()
	identity, err := identify(process.Pid, "")
	if err != nil {
		t.Fatal(err)
	}
	p, err := Open(identity)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close() // reaps it
	select {
	case <-p.Done():
		t.Error("a process that runs passes for a zombie")
	default:
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	zombie, err := Open(identity)
	if err != nil {
		t.Fatal(err)
	}
	defer zombie.Close()
	select {
	case <-zombie.Done():
	default:
		t.Error("a zombie passes for one that runs")
	}
}

// TestStatusOfAnothersChild: the kernel tells it, where it can, once the parent has reaped the child.
func TestStatusOfAnothersChild(t *testing.T) {
	parent := exec.Command("/bin/sh", "-c", "sleep 1000 & echo $!; wait; exit 0")
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscan(out, &pid); err != nil {
		t.Fatal(err)
	}
	identity, err := identify(pid, "")
	if err != nil {
		t.Fatal(err)
	}
	p, err := Open(identity)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	want := Status{}
	if _, _, _, err := unix.PidfdExit(int(p.pidfd.Fd())); errors.Is(err, syscall.ENODATA) { // not yet: the kernel can
		want = Status{Known: true, Signal: 9}
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	if status, err := p.Wait(t.Context()); err != nil || status != want {
		t.Errorf("status %+v, %v, want %+v", status, err, want)
	}
	if err := parent.Wait(); err != nil {
		t.Error(err)
	}
}

// TestCloseTellsAnEnd: nobody may wait for ever for an end that came before Close.
func TestCloseTellsAnEnd(t *testing.T) {
	for range 50 {
		p := start(t, "exec sleep 1000")
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		for ended := false; !ended; {
			ended, _ = unix.PidfdEnded(int(p.pidfd.Fd()))
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-p.Done():
		default:
			t.Fatal("the end is not told")
		}
	}
}
