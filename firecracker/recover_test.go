//go:build linux

package firecracker

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
	"github.com/tangle-network/microvm-runtime/internal/testing/tinyguest"
	"github.com/tangle-network/microvm-runtime/internal/unix"
)

// recovered calls Recover, which must have worked, and returns what it did as lines without uids.
func (r *rig) recovered(dry bool) []string {
	r.t.Helper()
	report, err := r.runtime.Recover(within(r.t), &microvm.RecoverOptions{DryRun: dry})
	if err != nil || len(report.Failed()) > 0 {
		r.t.Fatalf("recover: %+v, %v", report, err)
	}
	said := []string{}
	for _, action := range report {
		said = append(said, fmt.Sprintf("%s %s", action.Kind, action.What))
	}
	return said
}

// recoversTo checks a dry run, which changes nothing, then a recovery, and that another has nothing to do but what it always does.
func (r *rig) recoversTo(want ...string) {
	r.t.Helper()
	before := r.census()
	if got := r.recovered(true); !slices.Equal(got, want) {
		r.t.Errorf("a dry run says %q, want %q", got, want)
	}
	if !slices.Contains(want, "undone start") { // a VMM that was just born goes on by itself
		r.unchanged(before)
	}
	if got := r.recovered(false); !slices.Equal(got, want) {
		r.t.Errorf("it did %q, want %q", got, want)
	}
	again := slices.DeleteFunc(slices.Clone(want), func(said string) bool { return !strings.HasPrefix(said, string(microvm.ActionAdopted)) })
	if got := r.recovered(false); !slices.Equal(got, again) {
		r.t.Errorf("then it did %q, want %q", got, again)
	}
}

func TestRealRecoverAfterCreate(t *testing.T) {
	withDrive(t, ring.Real(t), func(t *testing.T, r *rig) {
		atEach(t, r, "create", func(r *rig, point string) {
			before := r.census()
			r.crash("create", "one", point)
			r.reopen()
			if point == "create/commit:after" {
				r.recoversTo()
				r.destroy(r.named("one"))
			} else {
				r.recoversTo("undone create")
			}
			r.nothingLeft(before)
		})
	})
}

func TestRealRecoverAfterStart(t *testing.T) {
	withDrive(t, ring.Real(t), func(t *testing.T, r *rig) {
		atEach(t, r, "start", func(r *rig, point string) {
			before := r.census()
			vm := r.create("one")
			r.crash("start", "one", point)
			r.reopen()
			switch point {
			case "start/record:before":
				r.recoversTo()
			case "start/commit:after":
				r.recoversTo("adopted run")
			default:
				r.recoversTo("undone start")
				if r.lives(vm.UID()) {
					r.t.Error("its VMM lives")
				}
			}
			r.destroy(r.named("one"))
			r.nothingLeft(before)
		})
	})
}

func TestRealRecoverAfterDestroy(t *testing.T) {
	withDrive(t, ring.Real(t), func(t *testing.T, r *rig) {
		atEach(t, r, "destroy", func(r *rig, point string) {
			before := r.census()
			r.start(r.create("one"))
			r.crash("destroy", "one", point)
			r.reopen()
			switch point {
			case "destroy/record:before":
				r.recoversTo("adopted run")
				r.destroy(r.named("one"))
			case "destroy/remove:after":
				r.recoversTo()
			default:
				r.recoversTo("destroyed destroy")
			}
			r.nothingLeft(before)
		})
	})
}

// TestRealRecoverWhatDied: a VMM that dies while no driver lives.
func TestRealRecoverWhatDied(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		r.create("one")
		r.crash("start", "one", "start/commit:after")
		killed(t, r.listed(r.named("one").UID()).PID)
		r.reopen()
		r.recoversTo("ended run")
		vm := r.named("one")
		defer r.destroy(vm)
		if info := r.info(vm); info.State != microvm.StateStopped || info.Exit == nil {
			t.Errorf("%+v", info)
		}
	})
}

// killed kills a process and waits until all of it has ended.
func killed(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := unix.PidfdSendSignal(fd, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for begin := time.Now(); ; time.Sleep(time.Millisecond) {
		if ended, err := unix.PidfdEnded(fd); ended || err != nil {
			return
		}
		if time.Since(begin) > 10*time.Second {
			t.Fatalf("process %d lives", pid)
		}
	}
}

func (r *rig) named(name string) *microvm.VM {
	r.t.Helper()
	vm, err := r.runtime.VM(r.t.Context(), name)
	if err != nil {
		r.t.Fatal(err)
	}
	return vm
}

// TestRealHostTableIsSetAgain: whoever flushes the host's rules, they are there again while a driver lives, and after Recover.
func TestRealHostTableIsSetAgain(t *testing.T) {
	r := newRig(t, ring.Real(t), false, tinyguest.Program{Text: marker + "\n"})
	r.start(r.create("one"))
	if err := r.runtime.Close(); err != nil {
		t.Fatal(err)
	}
	r.runtime = nil
	r.flushHost()
	r.reopen()
	defer func() { r.destroy(r.named("one")) }()
	if got, want := r.recovered(false), []string{"adopted run"}; !slices.Equal(got[:1], want) { // which opens the network, and so the host's table
		t.Errorf("did %q, want %q", got, want)
	}
	r.awaitHostTable()
	r.flushHost()
	r.awaitHostTable()
}

func (r *rig) flushHost() {
	r.t.Helper()
	err := r.options.hostNet.Do(func() error {
		out, err := exec.CommandContext(r.t.Context(), "nft", "flush", "ruleset").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) awaitHostTable() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	for {
		present, err := r.driver.hostPresent(ctx)
		if err != nil {
			r.t.Fatal(err)
		}
		if present {
			return
		}
		time.Sleep(time.Millisecond)
	}
}
