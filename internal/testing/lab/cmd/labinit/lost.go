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

// QEMU's emulation of nested SVM (seen with 7.2, once in some minutes of a busy guest) now and then takes the host for the guest: at an exit it saves the host's own registers in
// the guest's control block. The guest is to go on at the host's instruction behind its VMRUN, on the host's stack and page tables, where KVM can only give it a page fault,
// and the next, some 30,000 a second, for ever: its vCPU is busy, and it answers nobody. Or the first of them is a triple fault, and the machine ends in the middle of its work.
const (
	tracing    = "/sys/kernel/tracing"
	lostPeriod = 5 * time.Second
	lostFaults = 1000 // With nested paging KVM gives page faults only to what it emulates: a sound guest gets none in a period.
)

// guests watches for guests that the emulator has lost. Linux makes no triple fault: it resets by the keyboard controller.
type guests struct {
	faults, crashes counter
	losses          losses
}

func watchGuests() (*guests, error) {
	if err := syscall.Mount("tracefs", tracing, "tracefs", 0, ""); err != nil && !errors.Is(err, syscall.EBUSY) {
		return nil, fmt.Errorf("mount %s: %w", tracing, err)
	}
	faults, err1 := count("faults", "kvm_inj_exception", "exception == 14")
	crashes, err2 := count("crashes", "kvm_userspace_exit", "reason == 8") // KVM_EXIT_SHUTDOWN
	return &guests{faults: faults, crashes: crashes}, errors.Join(err1, err2)
}

// tell tells, each period, until a guest is lost.
func (g *guests) tell(events *port) {
	for range time.Tick(lostPeriod) {
		shown := g.crashed()
		if shown == "" && g.losses.add(g.faults.sum()) {
			shown = fmt.Sprintf("KVM gave guests %d page faults in %v", g.losses.fresh, lostPeriod)
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

// losses tells a guest that is lost by how many faults there are, at the end of each period.
type losses struct {
	sum, fresh uint64
	periods    int // with too many, one behind the other
}

func (l *losses) add(sum uint64) bool {
	l.fresh, l.sum = sum-l.sum, sum
	if l.fresh < lostFaults {
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
