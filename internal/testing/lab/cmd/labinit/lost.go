//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/tangle-network/microvm-runtime/internal/testing/lab"
)

// QEMU's emulation of nested SVM (7.2, when it runs on several CPUs at a time: once in some minutes of a busy guest) now and then takes the host for the guest: at an exit it
// saves the host's own registers in the guest's control block. The guest is to go on at the host's instruction behind its VMRUN, on the host's stack and page tables, where KVM
// can only give it a page fault, and the next, some 30,000 a second, for ever: its vCPU is busy, and it answers nobody. Or the first of them is a triple fault, and the machine
// ends in the middle of its work. And it was seen that the only vCPU of a guest waited for a spin lock for ever, which takes an interrupt where none may come.
const (
	tracing    = "/sys/kernel/tracing"
	lostPeriod = 5 * time.Second
	lostFaults = 1000                               // With nested paging KVM gives page faults only to what it emulates: a sound guest gets none in a period.
	lostSpins  = 250                                // Exits while a guest waits for a spin lock; one that is lost has as many as the host has interrupts, some 300 a second.
	spinning   = "native_queued_spin_lock_slowpath" // of the guest's kernel, which is the lab's
)

// guests watches for guests that the emulator has lost. Linux makes no triple fault: it resets by the keyboard controller.
type guests struct {
	faults, spins, crashes counter
	inFaults, inSpins      losses
}

func watchGuests() (*guests, error) {
	if err := syscall.Mount("tracefs", tracing, "tracefs", 0, ""); err != nil && !errors.Is(err, syscall.EBUSY) {
		return nil, fmt.Errorf("mount %s: %w", tracing, err)
	}
	faults, err1 := count("faults", "kvm_inj_exception", "exception == 14")
	crashes, err2 := count("crashes", "kvm_userspace_exit", "reason == 8") // KVM_EXIT_SHUTDOWN
	symbols, err3 := os.ReadFile("/proc/kallsyms")
	begin, end, err4 := function(string(symbols), spinning)
	spins, err5 := count("spins", "kvm_exit", fmt.Sprintf("guest_rip >= %#x && guest_rip < %#x", begin, end))
	g := &guests{faults: faults, spins: spins, crashes: crashes, inFaults: losses{most: lostFaults}, inSpins: losses{most: lostSpins}}
	return g, errors.Join(err1, err2, err3, err4, err5)
}

// function returns where a function of the kernel begins, and where what is behind it does.
func function(symbols, name string) (begin, end uint64, err error) {
	for line := range strings.Lines(symbols) {
		fields := strings.Fields(line) // address, kind, name
		if len(fields) < 3 {
			continue
		}
		at, _ := strconv.ParseUint(fields[0], 16, 64)
		if begin != 0 && at > begin {
			return begin, at, nil
		}
		if fields[2] == name {
			begin = at
		}
	}
	return 0, 0, fmt.Errorf("the kernel has no %s", name)
}

// tell tells, each period, until a guest is lost.
func (g *guests) tell(events *port) {
	for range time.Tick(lostPeriod) {
		shown := g.crashed()
		if g.inFaults.add(g.faults.sum()) {
			shown = fmt.Sprintf("KVM gave guests %d page faults in %v", g.inFaults.fresh, lostPeriod)
		}
		if g.inSpins.add(g.spins.sum()) {
			shown = fmt.Sprintf("one waits for a spin lock: %d exits in %v", g.inSpins.fresh, lostPeriod)
		}
		if shown != "" {
			events.send(lab.Event{Lost: shown})
			return
		}
	}
}

// crashed says what shows that a guest's end was none of its own; nothing when none has ended so.
func (g *guests) crashed() string {
	if n := g.crashes.sum(); n > 0 {
		return fmt.Sprintf("%d ended with a triple fault", n)
	}
	return ""
}

// losses tells a guest that is lost by how many events there are, at the end of each period.
type losses struct {
	most       uint64 // of a period, and less
	sum, fresh uint64
	periods    int // with too many, one behind the other
}

func (l *losses) add(sum uint64) bool {
	l.fresh, l.sum = sum-l.sum, sum
	if l.fresh < l.most {
		l.periods = 0
		return false
	}
	l.periods++
	return l.periods == 2
}

// counter is the directory of a trace of its own, of one kind of KVM's events.
type counter string

func count(name, event, filter string) (counter, error) {
	dir := filepath.Join(tracing, "instances", name)
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	for _, set := range []struct{ file, value string }{
		{"buffer_size_kb", "64"}, {"events/kvm/" + event + "/filter", filter}, {"events/kvm/" + event + "/enable", "1"},
	} {
		if err := os.WriteFile(filepath.Join(dir, set.file), []byte(set.value), 0); err != nil {
			return "", err
		}
	}
	return counter(dir), nil
}

// sum returns how many events there have been, also of those that the buffers have no room for.
func (c counter) sum() (sum uint64) {
	stats, _ := filepath.Glob(filepath.Join(string(c), "per_cpu", "cpu*", "stats"))
	for _, path := range stats {
		text, _ := os.ReadFile(path)
		sum += parseStats(string(text))
	}
	return sum
}

// parseStats reads a buffer's statistics: what is in it, and what newer events have taken the place of.
func parseStats(text string) (sum uint64) {
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		if name == "entries" || name == "overrun" {
			n, _ := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
			sum += n
		}
	}
	return sum
}
