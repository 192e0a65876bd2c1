//go:build linux

package vmm

import (
	"errors"
	"os"
	"testing"
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
