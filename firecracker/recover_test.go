//go:build linux

package firecracker

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/egress"
	"github.com/tangle-network/microvm-runtime/internal/firewall"
	"github.com/tangle-network/microvm-runtime/internal/netns"
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

// TestRealRecoverSlots: a process that has a hundred machines is killed; each slot is then its machine's, or nobody's.
func TestRealRecoverSlots(t *testing.T) {
	const machines, running = 100, 10
	r := newRig(t, ring.Real(t), false, tinyguest.Program{Text: marker + "\n"})
	r.spec.Network = &microvm.Network{Egress: egress.Policy{Rules: []egress.Rule{*must(egress.ParseRule("tcp:192.0.2.1:80"))}}}
	before := r.census()
	cmd := child(t.Context(), order{Options: childOptionsOf(r.options), Verb: "fleet", Spec: r.spec, Times: machines, Start: running, KillAt: "destroy/network:before"})
	out, err := cmd.CombinedOutput()
	exit := (*exec.ExitError)(nil)
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the child did not die: %v\n%s", err, out)
	}
	r.reopen()
	report, err := r.runtime.Recover(within(t), nil)
	if err != nil || len(report.Failed()) > 0 {
		t.Fatalf("%+v, %v", report, err)
	}
	kinds := map[microvm.ActionKind]int{}
	for _, action := range report {
		kinds[action.Kind]++
	}
	if kinds[microvm.ActionAdopted] != running || kinds[microvm.ActionDestroyed] != 1 || len(report) != running+1 {
		t.Errorf("did %v: %+v", kinds, report)
	}
	r.slotsAreTheirs(machines - 1)
	for _, info := range *must(r.runtime.List(t.Context(), nil)) {
		r.destroy(r.named(info.Name))
	}
	r.slotsAreTheirs(0)
	r.nothingLeft(before)
}

// slotsAreTheirs checks leases, namespaces and rules against the records.
func (r *rig) slotsAreTheirs(machines int) {
	r.t.Helper()
	leases := *must(r.driver.slots.Leases())
	infos := *must(r.runtime.List(r.t.Context(), nil))
	if len(leases) != machines || len(infos) != machines {
		r.t.Errorf("%d leases and %d machines, want %d", len(leases), len(infos), machines)
	}
	seen := map[string]bool{}
	for number, uid := range leases {
		record, err := r.driver.state.ReadRecord(uid)
		if err != nil || record.Slot != number || seen[record.Address.String()] {
			r.t.Errorf("slot %d is %s's: %+v, %v", number, uid, record.Address, err)
		}
		seen[record.Address.String()] = true
		ns, err := netns.Open(r.driver.slotPath(number))
		if err != nil {
			r.t.Errorf("slot %d: %v", number, err)
		}
		ns.Close()
	}
	n, err := r.driver.network(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	numbers, err := n.Slots()
	if err != nil {
		r.t.Fatal(err)
	}
	for _, number := range numbers { // those that are nobody's deny all
		if leases[number] != "" {
			continue
		}
		counters := r.countersOf(number)
		if len(counters.Rules) > 0 {
			r.t.Errorf("slot %d is nobody's and has rules: %+v", number, counters)
		}
	}
}

func (r *rig) countersOf(number int) firewall.Counters {
	r.t.Helper()
	ns := *must(netns.Open(r.driver.slotPath(number)))
	defer ns.Close()
	rules, err := firewall.OpenSlot(ns)
	if err != nil {
		r.t.Fatal(err)
	}
	defer rules.Close()
	counters, err := rules.Counters()
	if err != nil {
		r.t.Fatal(err)
	}
	return counters
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
