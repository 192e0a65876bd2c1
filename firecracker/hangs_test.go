//go:build linux

package firecracker

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	microvm "github.com/tangle-network/microvm-runtime"
	"github.com/tangle-network/microvm-runtime/internal/testing/ring"
)

// TestRealVMMHangsOverItsGuestsEnd: a VMM that does not answer because it stops, and never ends, is ended, and the machine has run.
func TestRealVMMHangsOverItsGuestsEnd(t *testing.T) {
	bothWays(t, ring.Real(t), func(t *testing.T, r *rig) {
		vm := r.create("one")
		defer r.destroy(vm)
		r.setHook(func(point string) error { // what the real one does seldom is done for it: it is held, and its log says that it stops
			if point != "start/vmm:before" {
				return nil
			}
			awaitLog(t, r, vm, booted)
			for _, pid := range r.pids(vm.UID()) {
				hold(t, pid)
			}
			return appendLog(r, vm, stopping)
		})
		if err := vm.Start(within(t), nil); err != nil {
			t.Fatal(err)
		}
		r.setHook(nil)
		exit, err := vm.Wait(within(t))
		if err != nil || exit.Reason != microvm.ReasonGuest || !strings.Contains(strings.Join(exit.Evidence, ";"), "stopping") {
			t.Errorf("exit %+v, %v", exit, err)
		}
		r.start(vm)
		if info := r.info(vm); info.State != microvm.StateRunning {
			t.Errorf("the next start: %+v", info)
		}
	})
}

// hold stops each thread of a process: a signal is only sent when kill returns, and a thread that has not met it yet writes over what is appended to its log.
func hold(t *testing.T, pid int) {
	t.Helper()
	signal(t, pid, syscall.SIGSTOP)
	ctx, cancel := context.WithTimeout(t.Context(), patienceOfLog)
	defer cancel()
	for {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		if len(threads) > 0 && !slices.ContainsFunc(threads, runs) {
			return
		}
		if ctx.Err() != nil {
			t.Fatalf("%d does not stop", pid)
		}
	}
}

// runs reads proc_pid_stat(5): the state follows the name, which is in parentheses and may hold any byte. A thread that is gone does not run.
func runs(path string) bool {
	stat, err := os.ReadFile(path)
	return err == nil && !bytes.HasPrefix(stat[bytes.LastIndexByte(stat, ')')+1:], []byte(" T "))
}

// patienceOfLog is how long a VMM may take to boot a few instructions.
const patienceOfLog = 10 * time.Second

func awaitLog(t *testing.T, r *rig, vm *microvm.VM, words string) {
	t.Helper()
	record := must(r.driver.state.ReadRecord(vm.UID()))
	ctx, cancel := context.WithTimeout(t.Context(), patienceOfLog)
	defer cancel()
	for !strings.Contains(r.driver.vmmLog(record), words) {
		if ctx.Err() != nil {
			t.Fatalf("the log does not say %q", words)
		}
	}
}

func appendLog(r *rig, vm *microvm.VM, words string) error {
	path := filepath.Join(r.options.SocketDir, vm.UID(), logPath)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(words + "\n")
	return err
}
