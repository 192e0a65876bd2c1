//go:build linux

package firecracker

import (
	"fmt"
	"strings"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
)

// reboot is reboot(2), with its magic numbers, by the one interpreter of the base that can call it. It is not asked of the agent, and nothing is synced.
func reboot(command uint32) string {
	return fmt.Sprintf("perl -e 'syscall(169, 0xfee1dead, 672274793, %d); sleep 100'", command)
}

const (
	rebootRestart  = 0x01234567
	rebootHalt     = 0xcdef0123
	rebootPowerOff = 0x4321fedc
)

// A guest that ends itself ends its VMM: an orderly end asked of the agent, as of any init, syncs first, be it called reboot, halt or power-off.
func TestLabGuestEndsItself(t *testing.T) {
	r := newLabRig(t, false)
	vm := r.create(microvm.Spec{})
	written := ""
	for _, end := range []struct {
		name, script string
		syncs        bool
	}{
		{"power-off", "kill -USR2 1", true}, {"halt", "kill -USR1 1", true}, {"reboot", "trap '' TERM; kill -TERM 1; sleep 100", true},
		{"reset", reboot(rebootRestart), false}, {"panic", "echo c > /proc/sysrq-trigger", false},
	} {
		r.start(vm)
		if got := sh(t, vm, "cat /root/written 2>/dev/null || true"); got != strings.TrimSuffix(written, "\n") {
			t.Errorf("before %s: %q was written, want %q", end.name, got, written)
		}
		sync := "true"
		if !end.syncs {
			sync = "sync"
		}
		sh(t, vm, "echo "+end.name+" >> /root/written; "+sync)
		written += end.name + "\n"
		last(t, vm, end.script)
		r.waitFor(vm, microvm.ReasonGuest)
	}
	if console := r.console(vm); !strings.Contains(console, "anic") {
		t.Errorf("the console does not tell of a panic:\n%s", console)
	}
}

// A guest that halted, or that powered itself off where there is no power, goes on costing a VMM. Stop ends it by force, when its grace is over.
func TestLabHalted(t *testing.T) {
	r := newLabRig(t, true)
	vm := r.create(microvm.Spec{})
	for name, command := range map[string]uint32{"halted": rebootHalt, "powered off": rebootPowerOff} {
		r.start(vm)
		last(t, vm, reboot(command))
		if info, err := vm.Info(t.Context()); err != nil || info.State != microvm.StateRunning || info.Jailed {
			t.Errorf("%s: info %+v, %v", name, info, err)
		}
		exit, err := vm.Stop(t.Context(), &microvm.StopOptions{Grace: time.Second})
		if err != nil || exit.Reason != microvm.ReasonForced {
			t.Errorf("%s: Stop = %+v, %v\nconsole:\n%s", name, exit, err, r.console(vm))
		}
	}
}
